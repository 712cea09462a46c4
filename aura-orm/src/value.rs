//! Kinds of values.

use sea_orm::DbErr;
use sea_orm::sea_query::ArrayType;

/// Returns the error for a kind of values that `SeaORM` has and this crate hasn't.
pub(crate) fn not_compiled(kind: &ArrayType) -> DbErr {
    let name = format!("{kind:?}");
    let feature = match name.as_str() {
        "Uuid" => "; enable the feature `with-uuid` of aura-orm",
        "Decimal" => "; enable the feature `with-rust_decimal` of aura-orm",
        _ => "",
    };
    DbErr::Type(format!("a {name} can't be read{feature}"))
}
