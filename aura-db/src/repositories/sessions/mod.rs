//! Who is logged in.
//!
//! ```
//! # use aura_db::{NewUser, SessionRequest, testing::TestDatabase};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let db = TestDatabase::sqlite().await?;
//! # let ada = db.users().create(NewUser::new("Ada", "ada@example.org", "a long secret")).await?;
//! let issued = db.login("ada@example.org", "a long secret", SessionRequest::default()).await?;
//! // The token goes to the client, once; the database holds its SHA-256.
//! let who = db.sessions().authenticate(&issued.token).await?.expect("just logged in");
//! assert_eq!(who.user.id, ada.id);
//!
//! db.users().change_password(ada.id, "a long secret", "a longer secret").await?;
//! assert!(db.sessions().authenticate(&issued.token).await?.is_none());
//! # Ok(()) }
//! ```

mod issue;
mod token;

use aura_orm::{CachedSql, RowDecoder, RowReader, TypedQuery};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entity::{Action, Resource, SessionId, TokenHash, UserId, sessions, users};
use sea_orm::sea_query::{Query, UpdateStatement};
use sea_orm::{
    ColumnTrait, Condition, DbBackend, DbErr, EntityTrait, Iterable, JoinType, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, RelationTrait,
};
use serde::Serialize;

use crate::context::{Context, Op};
use crate::error::Error;
use crate::repositories::batches::Changed;
use crate::repositories::users::User;
use crate::repositories::{clamp_timestamp, readable};

pub use entity::sessions::Model as Session;
pub(crate) use issue::Ready;
pub use issue::SessionRequest;
pub use token::Token;

/// How long a session lives, unless asked otherwise: AURA's seven days.
pub const SESSION_LIFETIME: Duration = Duration::from_hours(7 * 24);

/// [`Sessions::touch`] writes at most once in this time.
pub const TOUCH_INTERVAL: Duration = Duration::from_mins(1);

/// A session that was just opened, with the only copy of its token.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Issued {
    /// For the client.
    pub token: Token,
    /// As it is stored.
    pub session: Session,
}

/// Whose token it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Authenticated {
    /// The user, who is active.
    pub user: User,
    /// The session, which has not expired.
    pub session: Session,
}

/// Reads the columns of the session, and then those of the user.
impl RowDecoder for Authenticated {
    type Row = Self;

    fn decode(cells: &mut RowReader<'_>) -> Result<Self, DbErr> {
        Ok(Self {
            session: cells.next_model::<sessions::Entity>()?,
            user: cells.next_model::<users::Entity>()?,
        })
    }
}

/// The sessions. From [`Database::sessions`](crate::Database::sessions).
#[derive(Debug, Clone)]
pub struct Sessions(pub(crate) Context);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "sessions",
        name,
        needs: (action, Resource::User),
    }
}

impl Sessions {
    /// Opens a session for a user whose identity is proved otherwise (single
    /// sign-on). For a password use
    /// [`Users::login`](crate::users::Users::login).
    ///
    /// Fails with [`Error::Validation`], and with [`Error::NotFound`] when the
    /// user is not there, deleted, or not active.
    pub async fn issue(&self, user: UserId, request: SessionRequest) -> Result<Issued, Error> {
        let ready = Ready::new(request)?;
        let ready = &ready;
        self.0
            .write(op("issue", Action::Update), |h| async move {
                ready
                    .insert(&h, user, None)
                    .await?
                    .ok_or_else(|| Error::not_found("active user", user))
            })
            .await
    }

    /// Whose token this is: `None` when nobody's, when the session has expired
    /// or was revoked, or when the user is deleted or not active. One query, and
    /// another one for who is not let in.
    ///
    /// An expired session that somebody comes with is removed, so that a clock
    /// that is set back doesn't make it valid again. When it can't be removed
    /// (another process writes for longer than the limits, a full disk) that is
    /// logged, and the answer is `None` all the same.
    ///
    /// Fails when the database can't be read.
    pub async fn authenticate(&self, token: &Token) -> Result<Option<Authenticated>, Error> {
        self.authenticate_idle(token, None).await
    }

    /// As [`Sessions::authenticate`]; also `None` when the session was not
    /// [touched](Sessions::touch) for longer than `idle`, or when its last touch
    /// is further in the future than `idle`: the clock was set back since.
    pub async fn authenticate_within(
        &self,
        token: &Token,
        idle: Duration,
    ) -> Result<Option<Authenticated>, Error> {
        self.authenticate_idle(token, Some(idle)).await
    }

    async fn authenticate_idle(
        &self,
        token: &Token,
        idle: Option<Duration>,
    ) -> Result<Option<Authenticated>, Error> {
        let hash = &token.hash();
        let found = self
            .0
            .read(op("authenticate", Action::Read), |h| async move {
                static AUTHENTICATE: CachedSql = CachedSql::short_read();
                let now = h.now();
                let select = || {
                    let select = sessions::Entity::find()
                        .select_only()
                        .columns(sessions::Column::iter())
                        .columns(users::Column::iter())
                        .join(JoinType::InnerJoin, sessions::Relation::Users.def())
                        .filter(sessions::COLUMN.token.eq(hash.clone()))
                        .filter(valid(now, idle))
                        .filter(is_active());
                    Ok::<_, DbErr>(TypedQuery::<Authenticated>::of(select.into_query()))
                };
                if idle.is_some() {
                    h.fetch_optional(select()?).await
                } else {
                    let values = vec![hash.clone().into(), now.into(), true.into()];
                    h.fetch_optional(AUTHENTICATE.with(values, select)).await
                }
            })
            .await?;
        if found.is_none() {
            self.forget_expired(hash).await?;
        }
        Ok(found)
    }

    /// Removes the session of this token if it has expired. Where nothing can be
    /// written it stays.
    async fn forget_expired(&self, token: &TokenHash) -> Result<(), Error> {
        const FORGET: Op = op("forget_expired", Action::Read);
        // Whoever comes with a token that was never one must not keep writers
        // waiting.
        let expired = self
            .0
            .read(FORGET, |h| async move {
                let session = sessions::Entity::find()
                    .filter(sessions::COLUMN.token.eq(token.clone()))
                    .filter(sessions::COLUMN.expires_at.lte(h.now()));
                h.fetch_optional(session).await
            })
            .await?;
        let Some(Session { id, expires_at, .. }) = expired else {
            return Ok(());
        };
        let forgotten = self
            .0
            .write(FORGET, |h| async move {
                let delete = Query::delete()
                    .from_table(sessions::Entity)
                    .and_where(sessions::COLUMN.id.eq(id))
                    .and_where(sessions::COLUMN.expires_at.eq(expires_at))
                    .take();
                h.delete(&delete).await
            })
            .await;
        if let Err(error) = forgotten {
            tracing::warn!(target: "aura_db::sessions", %error, "an expired session was not removed");
        }
        Ok(())
    }

    /// Notes that the session is in use; writes at most once a minute. `false`
    /// when the session is not valid any more.
    pub async fn touch(&self, id: SessionId) -> Result<bool, Error> {
        self.0
            .write(op("touch", Action::Update), |h| async move {
                let now = h.now();
                let session = sessions::Entity::find()
                    .join(JoinType::InnerJoin, sessions::Relation::Users.def())
                    .filter(sessions::COLUMN.id.eq(id))
                    .filter(valid(now, None))
                    .filter(is_active());
                let Some(session) = h.fetch_optional(session).await? else {
                    return Ok(false);
                };
                let interval = TimeDelta::from_std(TOUCH_INTERVAL).unwrap_or_default();
                if (now - session.last_seen_at).abs() < interval {
                    return Ok(true);
                }
                let update = Query::update()
                    .table(sessions::Entity)
                    .value(sessions::Column::LastSeenAt, now)
                    .value(sessions::Column::UpdatedAt, now)
                    .and_where(sessions::COLUMN.id.eq(id))
                    .take();
                Ok(h.update(&update).await? > 0)
            })
            .await
    }

    /// The user's sessions that are valid, newest first: those of
    /// [`MAX_PAGE_BYTES`](crate::page::MAX_PAGE_BYTES). One that this build can't
    /// read is logged as an error (target `aura_db::unreadable`) and left out.
    ///
    /// Restricted to an editor, who may look at people, it fails with
    /// [`Error::Forbidden`] for another's: where somebody logged in from is
    /// nobody else's business.
    pub async fn list(&self, user: UserId) -> Result<Vec<Session>, Error> {
        const LIST: Op = op("list", Action::Read);
        self.0
            .read(LIST, |h| async move {
                if !h.reaches(user) {
                    return Err(h.forbidden(LIST));
                }
                let valid = sessions::Entity::find()
                    .join(JoinType::InnerJoin, sessions::Relation::Users.def())
                    .filter(sessions::COLUMN.user_id.eq(user))
                    .filter(valid(h.now(), None))
                    .filter(is_active())
                    .order_by_desc(sessions::Column::Id);
                Ok(readable(h.fetch_results(valid).await?.rows))
            })
            .await
    }

    /// Ends a session. `false` when there was none.
    pub async fn revoke(&self, id: SessionId) -> Result<bool, Error> {
        self.0
            .write(op("revoke", Action::Update), |h| async move {
                let delete = Query::delete()
                    .from_table(sessions::Entity)
                    .and_where(sessions::COLUMN.id.eq(id))
                    .take();
                Ok(h.delete(&delete).await? > 0)
            })
            .await
    }

    /// Ends all sessions of a user, or all but one ("log out everywhere
    /// else"), and says how many.
    pub async fn revoke_all(&self, user: UserId, but: Option<SessionId>) -> Result<u64, Error> {
        self.0
            .write(op("revoke_all", Action::Update), |h| async move {
                let delete = Query::delete()
                    .from_table(sessions::Entity)
                    .and_where(sessions::COLUMN.user_id.eq(user))
                    .and_where_option(but.map(|but| sessions::COLUMN.id.ne(but)))
                    .take();
                h.delete_many(&delete).await
            })
            .await
    }

    /// Exchanges a token for a new one, which lives as long as the old one
    /// would have. The old one is dead at once; of two who come with the same
    /// token, one gets a new one. `None` when [`Sessions::authenticate`] would
    /// say so.
    pub async fn rotate(&self, token: &Token) -> Result<Option<Issued>, Error> {
        let (old, new) = (token.hash(), Token::random()?);
        let (old, new) = (&old, &new);
        let issued = self
            .0
            .write(op("rotate", Action::Update), |h| async move {
                let now = h.now();
                let able = users::Entity::find()
                    .select_only()
                    .column(users::Column::Id)
                    .filter(is_active());
                let update: UpdateStatement = Query::update()
                    .table(sessions::Entity)
                    .value(sessions::Column::Token, new.hash())
                    .value(sessions::Column::LastSeenAt, now)
                    .value(sessions::Column::UpdatedAt, now)
                    .and_where(sessions::COLUMN.token.eq(old.clone()))
                    .and_where(sessions::COLUMN.expires_at.gt(now))
                    .and_where(sessions::COLUMN.user_id.in_subquery(able.into_query()))
                    .take();
                let session = h.update_returning::<sessions::Entity>(update).await?.pop();
                Ok(session.map(|session| Issued {
                    token: new.clone(),
                    session,
                }))
            })
            .await?;
        if issued.is_none() {
            self.forget_expired(old).await?;
        }
        Ok(issued)
    }

    /// Removes the sessions that have expired, those that expired first before others, and
    /// says how many. Outside of a transaction they are removed in batches that commit by
    /// themselves: what is removed before a failure stays removed.
    pub async fn delete_expired(&self) -> Result<u64, Error> {
        let (op, now) = (op("delete_expired", Action::Delete), self.0.now());
        self.0
            .in_batches(op, u64::MAX, |h, batch| async move {
                let sql = match h.backend() {
                    DbBackend::Postgres => EXPIRED_POSTGRES,
                    _ => EXPIRED_SQLITE,
                };
                let values = vec![now.into(), batch.limit().into()];
                h.sql(sql, values).await.map(Changed::rows)
            })
            .await
    }
}

const EXPIRED_POSTGRES: &str = r"
DELETE FROM sessions WHERE id = ANY (ARRAY (
    SELECT id FROM sessions WHERE expires_at <= $1
    ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))";

const EXPIRED_SQLITE: &str = r"
DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)";

/// Users who may log in.
pub(crate) fn is_active() -> Condition {
    Condition::all()
        .add(users::COLUMN.is_active.eq(true))
        .add(users::COLUMN.deleted_at.is_null())
}

/// Sessions that have not expired.
fn valid(now: DateTime<Utc>, idle: Option<Duration>) -> Condition {
    let idle = idle.and_then(|idle| TimeDelta::from_std(idle).ok());
    let since = idle.and_then(|idle| now.checked_sub_signed(idle));
    let until = idle.and_then(|idle| now.checked_add_signed(idle));
    // Not outside of what PostgreSQL has a date for.
    Condition::all()
        .add(sessions::COLUMN.expires_at.gt(now))
        .add_option(since.map(|since| sessions::COLUMN.last_seen_at.gte(clamp_timestamp(since))))
        .add_option(until.map(|until| sessions::COLUMN.last_seen_at.lte(clamp_timestamp(until))))
}
