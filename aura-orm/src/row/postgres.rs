//! Values of PostgreSQL, in its binary format.

use std::fmt::Write as _;

use chrono::{DateTime, Days, FixedOffset, Local, NaiveDate, NaiveTime, TimeDelta, Utc};
use sea_orm::sea_query::{ArrayType, Enum, OptionEnum};
use sea_orm::{DbErr, Value};

// The object ids of PostgreSQL's own types (src/include/catalog/pg_type.dat).
pub(super) const BOOL: u32 = 16;
pub(super) const BYTEA: u32 = 17;
pub(super) const CHAR: u32 = 18;
pub(super) const NAME: u32 = 19;
pub(super) const INT8: u32 = 20;
pub(super) const INT2: u32 = 21;
pub(super) const INT4: u32 = 23;
pub(super) const TEXT: u32 = 25;
pub(super) const OID: u32 = 26;
pub(super) const JSON: u32 = 114;
pub(super) const FLOAT4: u32 = 700;
pub(super) const FLOAT8: u32 = 701;
pub(super) const UNKNOWN: u32 = 705;
pub(super) const BPCHAR: u32 = 1042;
pub(super) const VARCHAR: u32 = 1043;
pub(super) const DATE: u32 = 1082;
pub(super) const TIME: u32 = 1083;
pub(super) const TIMESTAMP: u32 = 1114;
pub(super) const TIMESTAMPTZ: u32 = 1184;
pub(super) const NUMERIC: u32 = 1700;
pub(super) const UUID: u32 = 2950;
pub(super) const JSONB: u32 = 3802;

/// Types that a database defines have greater ids (`FirstNormalObjectId` in
/// src/include/access/transam.h).
const FIRST_USER_TYPE: u32 = 16_384;

/// PostgreSQL counts microseconds from there (src/include/datatype/timestamp.h).
const YEAR_2000: i64 = 946_684_800_000_000;

/// A cell of PostgreSQL.
#[derive(Clone, Copy)]
pub(super) struct Cell<'r> {
    pub(super) oid: u32,
    pub(super) bytes: &'r [u8],
}

/// Returns what a cell holds as a value of this kind. `None` when it holds something
/// else.
///
/// # Errors
///
/// [`DbErr::Type`] for a time that chrono can't hold, and for kinds that aren't compiled
/// in.
pub(crate) fn value(
    oid: u32,
    bytes: Option<&[u8]>,
    kind: &ArrayType,
) -> Result<Option<Value>, DbErr> {
    let cell = bytes.map(|bytes| Cell { oid, bytes });
    /// Reads a cell that isn't NULL.
    macro_rules! read {
        ($variant:ident, $read:expr) => {
            match cell.map($read) {
                None => Some(Value::$variant(None)),
                Some(found) => found.map(|found| Value::$variant(Some(found))),
            }
        };
    }
    /// Reads a cell that isn't NULL, whose time may be beyond what can be held.
    macro_rules! read_time {
        ($variant:ident, $read:expr) => {
            match cell.map($read) {
                None => Some(Value::$variant(None)),
                Some(None) => None,
                Some(Some(None)) => return Err(no_time()),
                Some(Some(found)) => Some(Value::$variant(found)),
            }
        };
    }
    Ok(match kind {
        ArrayType::Bool => read!(Bool, Cell::bool),
        ArrayType::TinyInt => read!(TinyInt, Cell::integer),
        ArrayType::SmallInt => read!(SmallInt, Cell::integer),
        ArrayType::Int => read!(Int, Cell::integer),
        ArrayType::BigInt => read!(BigInt, Cell::integer),
        ArrayType::TinyUnsigned => read!(TinyUnsigned, Cell::integer),
        ArrayType::SmallUnsigned => read!(SmallUnsigned, Cell::integer),
        ArrayType::Unsigned => read!(Unsigned, Cell::integer),
        ArrayType::BigUnsigned => read!(BigUnsigned, Cell::integer),
        ArrayType::Float => read!(Float, Cell::single),
        ArrayType::Double => read!(Double, Cell::double),
        ArrayType::String => read!(String, |cell| cell.text().map(Into::into)),
        ArrayType::Enum(name) => match cell.map(Cell::text) {
            None => Some(Value::Enum(OptionEnum::None((**name).clone()))),
            Some(text) => text.map(|text| {
                Value::Enum(OptionEnum::Some(Box::new(Enum {
                    type_name: (**name).clone(),
                    value: text.to_owned().into(),
                })))
            }),
        },
        ArrayType::Char => read!(Char, |cell| {
            let mut characters = cell.text()?.chars();
            characters.next().filter(|_| characters.next().is_none())
        }),
        ArrayType::Bytes => read!(Bytes, |cell| {
            (cell.oid == BYTEA).then(|| cell.bytes.to_vec())
        }),
        ArrayType::Json => read!(Json, |cell| {
            // As text where it was compared with others.
            let text = cell
                .json()
                .or_else(|| cell.text().filter(|_| cell.oid == TEXT));
            Some(Box::new(serde_json::from_str(text?).ok()?))
        }),
        ArrayType::ChronoDate => read_time!(ChronoDate, Cell::date),
        ArrayType::ChronoTime => read!(ChronoTime, Cell::time_of_day),
        ArrayType::ChronoDateTime => read_time!(ChronoDateTime, |cell| {
            let time = cell.timestamp(TIMESTAMP)?;
            Some(time.map(|time| time.naive_utc()))
        }),
        ArrayType::ChronoDateTimeUtc => {
            read_time!(ChronoDateTimeUtc, |cell| cell.timestamp(TIMESTAMPTZ))
        }
        ArrayType::ChronoDateTimeLocal => read_time!(ChronoDateTimeLocal, |cell| {
            let time = cell.timestamp(TIMESTAMPTZ)?;
            Some(time.map(|time| time.with_timezone(&Local)))
        }),
        ArrayType::ChronoDateTimeWithTimeZone => {
            read_time!(ChronoDateTimeWithTimeZone, |cell| {
                let time = cell.timestamp(TIMESTAMPTZ)?;
                Some(time.map(DateTime::<FixedOffset>::from))
            })
        }
        #[cfg(feature = "with-time")]
        ArrayType::TimeDate => return time(oid, bytes, &ArrayType::ChronoDate),
        #[cfg(feature = "with-time")]
        ArrayType::TimeTime => return time(oid, bytes, &ArrayType::ChronoTime),
        #[cfg(feature = "with-time")]
        ArrayType::TimeDateTime => return time(oid, bytes, &ArrayType::ChronoDateTime),
        #[cfg(feature = "with-time")]
        ArrayType::TimeDateTimeWithTimeZone => {
            return time(oid, bytes, &ArrayType::ChronoDateTimeWithTimeZone);
        }
        #[cfg(feature = "with-uuid")]
        ArrayType::Uuid => read!(Uuid, |cell| {
            let bytes = (cell.oid == UUID).then_some(cell.bytes)?;
            sea_orm::prelude::Uuid::from_slice(bytes).ok()
        }),
        #[cfg(feature = "with-rust_decimal")]
        ArrayType::Decimal => read!(Decimal, |cell| cell.numeric()?.parse().ok()),
        #[allow(
            unreachable_patterns,
            reason = "SeaORM has other kinds with other features"
        )]
        other => return Err(crate::value::not_compiled(other)),
    })
}

/// Reads a value of the crate time as one of this kind of chrono's.
#[cfg(feature = "with-time")]
fn time(oid: u32, bytes: Option<&[u8]>, kind: &ArrayType) -> Result<Option<Value>, DbErr> {
    let time = value(oid, bytes, kind)?;
    time.map(|time| crate::value::time::from_chrono(&time).ok_or_else(no_time))
        .transpose()
}

fn no_time() -> DbErr {
    DbErr::Type("a time beyond the years that can be read, as infinity is".to_owned())
}

impl<'r> Cell<'r> {
    pub(super) fn bool(self) -> Option<bool> {
        (self.oid == BOOL).then(|| self.bytes == [1])
    }

    /// Returns an integer of any width, and a `numeric` without decimals, as `sum` of
    /// `bigint` is.
    pub(super) fn integer<T: TryFrom<i128>>(self) -> Option<T> {
        let number: i128 = match self.oid {
            INT8 => i64::from_be_bytes(self.bytes.try_into().ok()?).into(),
            INT4 => i32::from_be_bytes(self.bytes.try_into().ok()?).into(),
            INT2 => i16::from_be_bytes(self.bytes.try_into().ok()?).into(),
            OID => u32::from_be_bytes(self.bytes.try_into().ok()?).into(),
            CHAR => i8::from_be_bytes(self.bytes.try_into().ok()?).into(),
            NUMERIC => self.numeric()?.parse().ok()?,
            _ => return None,
        };
        T::try_from(number).ok()
    }

    /// Returns a number with decimals, in the precision that the caller asks for; also of a
    /// wider type, as `avg` is.
    pub(super) fn single(self) -> Option<f32> {
        match self.oid {
            FLOAT4 => Some(f32::from_be_bytes(self.bytes.try_into().ok()?)),
            #[expect(clippy::cast_possible_truncation, reason = "as the type says")]
            _ => self.double().map(|number| number as f32),
        }
    }

    /// Returns a number with decimals; also of a `numeric`, as `avg` of integers is.
    pub(super) fn double(self) -> Option<f64> {
        match self.oid {
            FLOAT8 => Some(f64::from_be_bytes(self.bytes.try_into().ok()?)),
            FLOAT4 => self.single().map(f64::from),
            NUMERIC => self.numeric()?.parse().ok(),
            _ => None,
        }
    }

    /// Returns text, and JSON as it is written.
    pub(super) fn text(self) -> Option<&'r str> {
        match self.oid {
            TEXT | VARCHAR | BPCHAR | NAME | UNKNOWN => {}
            // An enum, or a type of an extension.
            user_type if user_type >= FIRST_USER_TYPE => {}
            _ => return self.json(),
        }
        std::str::from_utf8(self.bytes).ok()
    }

    pub(super) fn json(self) -> Option<&'r str> {
        // After the version of the format of `jsonb`.
        let ((JSON, text) | (JSONB, [1, text @ ..])) = (self.oid, self.bytes) else {
            return None;
        };
        std::str::from_utf8(text).ok()
    }

    /// Returns a timestamp of this type. The inner `None` is `infinity`, or a year that
    /// chrono can't hold.
    #[expect(clippy::option_option, reason = "another type, and no time")]
    pub(super) fn timestamp(self, oid: u32) -> Option<Option<DateTime<Utc>>> {
        if self.oid != oid {
            return None;
        }
        let micros = i64::from_be_bytes(self.bytes.try_into().ok()?);
        let micros = micros.checked_add(YEAR_2000);
        Some(micros.and_then(DateTime::from_timestamp_micros))
    }

    #[expect(clippy::option_option, reason = "another type, and no time")]
    pub(super) fn date(self) -> Option<Option<NaiveDate>> {
        if self.oid != DATE {
            return None;
        }
        let days = i32::from_be_bytes(self.bytes.try_into().ok()?);
        let from = NaiveDate::from_ymd_opt(2000, 1, 1)?;
        let distance = Days::new(days.unsigned_abs().into());
        Some(if days < 0 {
            from.checked_sub_days(distance)
        } else {
            from.checked_add_days(distance)
        })
    }

    /// Returns the word for a time that has no other: of `infinity`, and of 24:00.
    pub(super) fn time_word(self) -> Option<&'static str> {
        let number: i64 = match self.oid {
            DATE => match i32::from_be_bytes(self.bytes.try_into().ok()?) {
                i32::MAX => i64::MAX,
                i32::MIN => i64::MIN,
                _ => return None,
            },
            TIME | TIMESTAMP | TIMESTAMPTZ => i64::from_be_bytes(self.bytes.try_into().ok()?),
            _ => return None,
        };
        match number {
            86_400_000_000 if self.oid == TIME => Some("24:00:00"),
            i64::MAX if self.oid != TIME => Some("infinity"),
            i64::MIN if self.oid != TIME => Some("-infinity"),
            _ => None,
        }
    }

    /// Returns a time of day. PostgreSQL's 24:00 is none.
    pub(super) fn time_of_day(self) -> Option<NaiveTime> {
        if self.oid != TIME {
            return None;
        }
        let micros = i64::from_be_bytes(self.bytes.try_into().ok()?);
        let since_midnight = TimeDelta::microseconds(micros);
        let (time, days) = NaiveTime::MIN.overflowing_add_signed(since_midnight);
        (days == 0).then_some(time)
    }

    /// Returns the decimal digits of a `numeric` (`numeric_send` in
    /// src/backend/utils/adt/numeric.c).
    pub(super) fn numeric(self) -> Option<String> {
        if self.oid != NUMERIC {
            return None;
        }
        let mut words = self.bytes.chunks_exact(2);
        let mut word = || Some(u16::from_be_bytes(words.next()?.try_into().ok()?));
        let (count, weight, sign, scale) = (word()?, word()?.cast_signed(), word()?, word()?);
        match sign {
            0 | 0x4000 => {}
            0xC000 => return Some("NaN".to_owned()),
            0xD000 => return Some("Infinity".to_owned()),
            0xF000 => return Some("-Infinity".to_owned()),
            _ => return None,
        }
        // Each is four decimal digits, the first at 10000 to the power of `weight`.
        let groups: Vec<u16> = std::iter::from_fn(word).take(count.into()).collect();
        let group = |power: i32| {
            let index = usize::try_from(i32::from(weight) - power).ok();
            index
                .and_then(|index| groups.get(index))
                .copied()
                .unwrap_or(0)
        };
        let mut text = String::from(if sign == 0x4000 { "-" } else { "" });
        text += &group(i32::from(weight).max(0)).to_string();
        for power in (0..i32::from(weight).max(0)).rev() {
            write!(text, "{:04}", group(power)).ok()?;
        }
        if scale > 0 {
            text.push('.');
            let end = text.len() + usize::from(scale);
            for power in 1..=i32::from(scale).div_euclid(4) + 1 {
                write!(text, "{:04}", group(-power)).ok()?;
            }
            text.truncate(end);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `numeric` as the server sends it.
    fn numeric(weight: i16, sign: u16, scale: u16, groups: &[u16]) -> Vec<u8> {
        let count = u16::try_from(groups.len()).expect("few");
        let mut words = vec![count, weight.cast_unsigned(), sign, scale];
        words.extend(groups);
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn numerics_have_their_digits() {
        let cases = [
            (numeric(0, 0, 0, &[]), "0"),
            (numeric(0, 0, 2, &[]), "0.00"),
            (numeric(0, 0, 0, &[42]), "42"),
            (numeric(1, 0x4000, 0, &[1, 2]), "-10002"),
            (numeric(2, 0, 0, &[7]), "700000000"),
            (numeric(0, 0, 2, &[12, 5000]), "12.50"),
            (numeric(-1, 0, 4, &[1]), "0.0001"),
            (numeric(-2, 0x4000, 6, &[100]), "-0.000001"),
            (numeric(1, 0, 5, &[1, 0, 0, 1000]), "10000.00001"),
            (numeric(0, 0xC000, 0, &[]), "NaN"),
        ];
        for (bytes, text) in cases {
            let cell = Cell {
                oid: NUMERIC,
                bytes: &bytes,
            };
            assert_eq!(cell.numeric().as_deref(), Some(text));
        }
    }

    #[test]
    fn integers_fit_or_are_none() {
        let cell = |oid, bytes| Cell { oid, bytes };
        assert_eq!(cell(INT2, &[0, 7]).integer(), Some(7_i64));
        assert_eq!(cell(INT8, &[0, 0, 0, 0, 0, 0, 1, 0]).integer::<u8>(), None);
        assert_eq!(cell(INT8, &[0, 0]).integer::<i64>(), None);
        assert_eq!(cell(TEXT, b"7").integer::<i64>(), None);
        let sum = numeric(4, 0, 0, &[922, 3372, 368, 5477, 5807]);
        assert_eq!(cell(NUMERIC, &sum).integer(), Some(i64::MAX));
        assert_eq!(cell(NUMERIC, &sum).integer::<i32>(), None);
    }

    #[test]
    fn numbers_with_decimals_are_read_in_any_precision() {
        fn cell(oid: u32, bytes: &[u8]) -> Cell<'_> {
            Cell { oid, bytes }
        }
        let average = numeric(0, 0, 2, &[12, 5000]);
        assert_eq!(cell(NUMERIC, &average).double(), Some(12.5));
        assert_eq!(cell(NUMERIC, &average).single(), Some(12.5));
        assert_eq!(cell(FLOAT8, &0.5_f64.to_be_bytes()).single(), Some(0.5));
        assert_eq!(cell(FLOAT4, &0.5_f32.to_be_bytes()).double(), Some(0.5));
        assert_eq!(cell(NUMERIC, &average).integer::<i64>(), None);
        assert_eq!(cell(INT8, &7_i64.to_be_bytes()).single(), None);
    }

    #[test]
    fn times_that_chrono_cannot_hold_are_errors() {
        let infinity = i64::MAX.to_be_bytes();
        let read = value(TIMESTAMPTZ, Some(&infinity), &ArrayType::ChronoDateTimeUtc);
        assert!(matches!(read, Err(DbErr::Type(_))));
        let read = value(DATE, Some(&i32::MIN.to_be_bytes()), &ArrayType::ChronoDate);
        assert!(matches!(read, Err(DbErr::Type(_))));
        let midnight = value(
            TIME,
            Some(&86_400_000_000_i64.to_be_bytes()),
            &ArrayType::ChronoTime,
        );
        assert_eq!(midnight.ok(), Some(None));
    }
}
