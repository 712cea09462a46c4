//! Documents as the drivers read and write them: as text, which none of them parses.

use std::str::Utf8Error;

use bytes::BytesMut;
use rusqlite::types::{FromSqlResult, ToSqlOutput, ValueRef};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, Postgres, Sqlite, Type};
use tokio_postgres::types::{self as postgres, FromSql, ToSql, accepts, to_sql_checked};

use crate::rows::Json;

/// `PostgreSQL`'s identifiers of these types.
const JSON: u32 = 114;
pub(super) const JSONB: u32 = 3802;

/// Returns the text of a `json`, or of a `jsonb`, which begins with the number of its
/// format.
pub(super) fn text(raw: &[u8], jsonb: bool) -> Result<String, Utf8Error> {
    let raw = if jsonb { raw.get(1..) } else { Some(raw) };
    std::str::from_utf8(raw.unwrap_or_default()).map(str::to_owned)
}

impl rusqlite::types::FromSql for Json {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        String::column_result(value).map(Self::Text)
    }
}

impl rusqlite::ToSql for Json {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Text(text) => text.as_str().into(),
            Self::Value(value) => value.to_string().into(),
        })
    }
}

impl<'a> FromSql<'a> for Json {
    fn from_sql(kind: &postgres::Type, raw: &'a [u8]) -> Result<Self, BoxDynError> {
        Ok(Self::Text(text(raw, *kind == postgres::Type::JSONB)?))
    }

    accepts!(JSON, JSONB);
}

impl ToSql for Json {
    fn to_sql(
        &self,
        kind: &postgres::Type,
        out: &mut BytesMut,
    ) -> Result<postgres::IsNull, BoxDynError> {
        if *kind == postgres::Type::JSONB {
            out.extend_from_slice(&[1]);
        }
        out.extend_from_slice(self.as_text().as_bytes());
        Ok(postgres::IsNull::No)
    }

    accepts!(JSON, JSONB);
    to_sql_checked!();
}

impl Type<Postgres> for Json {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(JSON))
    }

    fn compatible(kind: &PgTypeInfo) -> bool {
        kind.oid().is_some_and(|oid| [JSON, JSONB].contains(&oid.0))
    }
}

impl<'a> Decode<'a, Postgres> for Json {
    fn decode(value: PgValueRef<'a>) -> Result<Self, BoxDynError> {
        let kind = sqlx::ValueRef::type_info(&value).oid();
        let jsonb = value.format() == PgValueFormat::Binary && kind == Some(Oid(JSONB));
        Ok(Self::Text(text(value.as_bytes()?, jsonb)?))
    }
}

impl Encode<'_, Postgres> for Json {
    fn encode_by_ref(&self, out: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        out.extend_from_slice(self.as_text().as_bytes());
        Ok(IsNull::No)
    }
}

impl Type<Sqlite> for Json {
    fn type_info() -> SqliteTypeInfo {
        <str as Type<Sqlite>>::type_info()
    }

    fn compatible(kind: &SqliteTypeInfo) -> bool {
        <str as Type<Sqlite>>::compatible(kind)
    }
}

impl<'a> Decode<'a, Sqlite> for Json {
    fn decode(value: SqliteValueRef<'a>) -> Result<Self, BoxDynError> {
        <String as Decode<Sqlite>>::decode(value).map(Self::Text)
    }
}

impl Encode<'_, Sqlite> for Json {
    fn encode_by_ref(&self, out: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode(self.as_text(), out)
    }
}
