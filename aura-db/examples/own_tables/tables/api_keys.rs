//! API keys: a token is shown once, known by its prefix, and found by its hash.

use aura_db::migration::CreateTable;
use aura_db::sea_orm::{self, IntoActiveModel, Set, entity::prelude::*};
use aura_db::secrecy::ExposeSecret;
use aura_db::{Database, Error, RepositoryEntity, Token, TokenHash, UserId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_keys")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) prefix: String,
    #[sea_orm(unique)]
    pub(crate) hash: TokenHash,
    pub(crate) owner_id: UserId,
    pub(crate) last_used_at: Option<DateTimeUtc>,
}

impl ActiveModelBehavior for ActiveModel {}
impl RepositoryEntity for Entity {}

pub(crate) const CREATE: CreateTable =
    CreateTable::new("m20261202_api_keys", &["api_keys"], |columns| {
        let mut table = columns.table_by("api_keys", columns.string("prefix", 8));
        table
            .col(columns.string("hash", 64).not_null())
            .col(columns.integer("owner_id").not_null())
            .col(columns.time("last_used_at"))
            .foreign_key(&mut columns.cascade("api_keys", "owner_id", "users"));
        let hash = columns.unique("api_keys", &["hash"]);
        columns.sql(&table, &[hash, columns.index("api_keys", &["owner_id"])])
    });

/// Makes a key of the acting user.
pub(crate) async fn issue(db: &Database) -> Result<(Token, Model), Error> {
    let token = Token::random()?;
    let row = ActiveModel {
        prefix: Set(token.expose_secret().chars().take(8).collect()),
        hash: Set(token.hash()),
        ..Default::default()
    };
    Ok((token, db.repository::<Entity>().insert(row).await?))
}

/// Finds the key of a token, and notes that it was used.
pub(crate) async fn authenticate(db: &Database, token: &Token) -> Result<Option<Model>, Error> {
    let keys = db.repository::<Entity>();
    let Some(key) = keys.first(COLUMN.hash.eq(token.hash())).await? else {
        return Ok(None);
    };
    let mut used = key.into_active_model();
    used.last_used_at = Set(Some(db.now()));
    Ok(Some(keys.update(used).await?))
}
