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

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use entity::{Action, PasswordHash, Resource, SessionId, TokenHash, UserId, sessions, users};
use rand::TryRng;
use sea_orm::sea_query::{Expr, LockType, Query, UpdateStatement};
use sea_orm::{
    ColumnTrait, Condition, DbBackend, DbErr, EntityTrait, FromQueryResult, Iterable, JoinType,
    QueryFilter, QueryOrder, QueryResult, QuerySelect, QueryTrait, RelationTrait,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::engine::run::{Rows, Shape};
use crate::engine::{Handle, Op};
use crate::error::Error;
use crate::password;
use crate::repositories::users::{User, Users};
use crate::validate::{Check, normal_email};

pub use entity::sessions::Model as Session;

/// How long a session lives, unless asked otherwise: AURA's seven days.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// [`Sessions::touch`] writes at most once in this time.
pub const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// The longest life of a session, ten years: no date can overflow.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// What opens a session: 256 random bits, in 43 characters. It is shown once,
/// when the session is issued; `Debug` doesn't show it.
#[derive(Clone)]
pub struct Token(SecretString);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl Token {
    /// A token that a client sent.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    fn random() -> Result<Self, Error> {
        let mut bits = [0_u8; 32];
        rand::rngs::SysRng
            .try_fill_bytes(&mut bits)
            .map_err(|_| Error::Password(password::PasswordError::System))?;
        Ok(Self::new(BASE64_URL_SAFE_NO_PAD.encode(bits)))
    }

    fn hash(&self) -> TokenHash {
        use fmt::Write;
        let digest = Sha256::digest(self.0.expose_secret().as_bytes());
        let mut hex = String::with_capacity(64);
        for byte in digest {
            let _ = write!(hex, "{byte:02x}");
        }
        TokenHash(hex)
    }
}

impl ExposeSecret<str> for Token {
    fn expose_secret(&self) -> &str {
        self.0.expose_secret()
    }
}

/// What a session is issued with.
#[derive(Debug, Clone)]
pub struct SessionRequest {
    /// The browser, at most 255 characters; what is longer is cut.
    pub user_agent: Option<String>,
    /// Where the client is, at most 64 characters.
    pub ip_address: Option<String>,
    /// How long it lives, to the microsecond.
    pub lifetime: Duration,
}

impl Default for SessionRequest {
    fn default() -> Self {
        Self {
            user_agent: None,
            ip_address: None,
            lifetime: SESSION_LIFETIME,
        }
    }
}

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

impl Shape for Authenticated {
    fn read(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self {
            session: Session::from_query_result(row, "s_")?,
            user: User::from_query_result(row, "u_")?,
        })
    }
}

/// The sessions. From [`Database::sessions`](crate::Database::sessions).
#[derive(Debug, Clone)]
pub struct Sessions(pub(crate) Handle);

const fn op(name: &'static str, action: Action) -> Op {
    Op {
        table: "sessions",
        name,
        needs: (action, Resource::User),
    }
}

impl Sessions {
    /// Opens a session for a user whose identity is proved otherwise (single
    /// sign-on). For a password use [`Users::login`].
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
    /// or was revoked, or when the user is deleted or not active. One query.
    pub async fn authenticate(&self, token: &Token) -> Result<Option<Authenticated>, Error> {
        self.authenticate_idle(token, None).await
    }

    /// As [`Sessions::authenticate`]; also `None` when the session was not
    /// [touched](Sessions::touch) for longer than `idle`.
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
        self.0
            .read(op("authenticate", Action::Read), |h| async move {
                let now = h.now();
                let mut select = sessions::Entity::find()
                    .select_only()
                    .join(JoinType::InnerJoin, sessions::Relation::Users.def());
                for column in sessions::Column::iter() {
                    select = select.column_as(column, format!("s_{}", name_of(column)));
                }
                for column in users::Column::iter() {
                    select = select.column_as(column, format!("u_{}", name_of(column)));
                }
                let select = select
                    .filter(sessions::COLUMN.token.eq(hash.clone()))
                    .filter(valid(now, idle))
                    .filter(able());
                let rows = h
                    .shaped::<Authenticated>(Rows::of("sessions", select.into_query()))
                    .await?;
                Ok(rows.into_iter().next())
            })
            .await
    }

    /// Notes that the session is in use; writes at most once a minute. `false`
    /// when the session is not valid any more.
    pub async fn touch(&self, id: SessionId) -> Result<bool, Error> {
        self.0
            .write(op("touch", Action::Update), |h| async move {
                let now = h.now();
                let session = sessions::Entity::find()
                    .filter(sessions::COLUMN.id.eq(id))
                    .filter(valid(now, None));
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

    /// The user's sessions that are valid, newest first.
    pub async fn list(&self, user: UserId) -> Result<Vec<Session>, Error> {
        self.0
            .read(op("list", Action::Read), |h| async move {
                h.fetch_all(
                    sessions::Entity::find()
                        .filter(sessions::COLUMN.user_id.eq(user))
                        .filter(valid(h.now(), None))
                        .order_by_desc(sessions::Column::Id),
                )
                .await
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
                h.delete(&delete).await
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
        self.0
            .write(op("rotate", Action::Update), |h| async move {
                let now = h.now();
                let able = users::Entity::find()
                    .select_only()
                    .column(users::Column::Id)
                    .filter(able());
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
            .await
    }

    /// Removes the sessions that have expired, and says how many.
    pub async fn delete_expired(&self) -> Result<u64, Error> {
        self.0
            .write(op("delete_expired", Action::Delete), |h| async move {
                let delete = Query::delete()
                    .from_table(sessions::Entity)
                    .and_where(sessions::COLUMN.expires_at.lte(h.now()))
                    .take();
                h.delete(&delete).await
            })
            .await
    }
}

impl Users {
    /// Checks a password and opens a session, in one step: a password that is
    /// changed in between wins, and there is no session. An unknown address
    /// takes as long as a wrong password.
    ///
    /// A hash of an older kind (bcrypt, other parameters) is replaced.
    ///
    /// Fails with [`Error::Credentials`] when the address or the password is
    /// wrong, or the user is deleted or not active, and with
    /// [`Error::Validation`].
    pub async fn login(
        &self,
        email: &str,
        password: impl Into<SecretString>,
        request: SessionRequest,
    ) -> Result<Issued, Error> {
        let password = password.into();
        let ready = Ready::new(request)?;
        let known = self.known(email).await?;
        let hash = known
            .as_ref()
            .map_or_else(password::unusable, |(_, hash)| hash.clone());
        let verified = password::verify(&password, &hash).await?;
        let (Some((id, _)), true) = (known, verified.matches()) else {
            return Err(Error::Credentials);
        };
        let fresh = if verified.outdated() {
            Some(password::hash(&password).await?)
        } else {
            None
        };
        let (ready, hash, fresh) = (&ready, &hash, &fresh);
        let op = op("login", Action::Update);
        let issued = if let Some(fresh) = fresh {
            self.0
                .atomic(op, |h| async move {
                    rehash(&h, id, hash, fresh).await?;
                    ready.insert(&h, id, Some(fresh)).await
                })
                .await?
        } else {
            self.0
                .write(
                    op,
                    |h| async move { ready.insert(&h, id, Some(hash)).await },
                )
                .await?
        };
        issued.ok_or(Error::Credentials)
    }

    /// The id and hash of somebody who may log in.
    async fn known(&self, email: &str) -> Result<Option<(UserId, PasswordHash)>, Error> {
        let email = &normal_email(email);
        if email.contains('\0') {
            return Ok(None);
        }
        let user = self
            .0
            .read(op("login_lookup", Action::Update), |h| async move {
                let user = users::Entity::find()
                    .filter(users::COLUMN.email.eq(email.clone()))
                    .filter(able());
                h.fetch_optional(user).await
            })
            .await?;
        Ok(user.map(|user| (user.id, user.hashed_password)))
    }
}

/// Replaces a hash, unless the password was changed since.
async fn rehash(
    h: &Handle,
    id: UserId,
    old: &PasswordHash,
    new: &PasswordHash,
) -> Result<(), Error> {
    let update = Query::update()
        .table(users::Entity)
        .value(users::Column::HashedPassword, new.clone())
        .and_where(users::COLUMN.id.eq(id))
        .and_where(users::COLUMN.hashed_password.eq(old.clone()))
        .take();
    if h.update(&update).await? == 0 {
        return Err(Error::Credentials);
    }
    Ok(())
}

/// A session that is checked and has its token.
struct Ready {
    request: SessionRequest,
    lifetime: TimeDelta,
    token: Token,
}

impl Ready {
    fn new(mut request: SessionRequest) -> Result<Self, Error> {
        let mut check = Check::default();
        if let Some(agent) = &mut request.user_agent {
            // A browser chooses it, and nobody would log in again for it.
            if let Some((end, _)) = agent.char_indices().nth(255) {
                agent.truncate(end);
            }
        }
        check.optional("user_agent", request.user_agent.as_deref(), 255);
        check.optional("ip_address", request.ip_address.as_deref(), 64);
        if request.lifetime.is_zero() || request.lifetime > LONGEST_LIFETIME {
            check.refuse(
                "lifetime",
                "must be more than nothing and at most ten years",
            );
        }
        check.done()?;
        let micros = i64::try_from(request.lifetime.as_micros()).unwrap_or(i64::MAX);
        Ok(Self {
            request,
            lifetime: TimeDelta::microseconds(Ord::max(micros, 1)),
            token: Token::random()?,
        })
    }

    /// Inserts it if the user may log in and, when asked, still has this hash:
    /// one statement, which waits for a change of the user that is under way.
    async fn insert(
        &self,
        h: &Handle,
        user: UserId,
        hash: Option<&PasswordHash>,
    ) -> Result<Option<Issued>, Error> {
        use sessions::Column;
        let now = h.now();
        let mut from = Query::select();
        from.expr(Expr::val(self.token.hash()))
            .expr(Expr::val(self.request.user_agent.clone()))
            .expr(Expr::val(self.request.ip_address.clone()))
            .expr(Expr::val(now + self.lifetime))
            .expr(Expr::val(now))
            .expr(Expr::val(now))
            .expr(Expr::val(now))
            .column((users::Entity, users::Column::Id))
            .from(users::Entity)
            .cond_where(
                able()
                    .add(users::COLUMN.id.eq(user))
                    .add_option(hash.map(|hash| users::COLUMN.hashed_password.eq(hash.clone()))),
            );
        if h.backend() == DbBackend::Postgres {
            from.lock(LockType::Share);
        }
        let mut insert = Query::insert();
        insert.into_table(sessions::Entity).columns([
            Column::Token,
            Column::UserAgent,
            Column::IpAddress,
            Column::ExpiresAt,
            Column::LastSeenAt,
            Column::CreatedAt,
            Column::UpdatedAt,
            Column::UserId,
        ]);
        insert.select_from(from).map_err(|source| Error::Other {
            doing: "building a statement",
            source: DbErr::Custom(source.to_string()),
        })?;
        let session = h.insert_selected::<sessions::Entity>(insert).await?;
        Ok(session.map(|session| Issued {
            token: self.token.clone(),
            session,
        }))
    }
}

fn name_of<C: sea_orm::IdenStatic>(column: C) -> &'static str {
    column.as_str()
}

/// Users who may log in.
fn able() -> Condition {
    Condition::all()
        .add(users::COLUMN.is_active.eq(true))
        .add(users::COLUMN.deleted_at.is_null())
}

/// Sessions that have not expired.
fn valid(now: DateTime<Utc>, idle: Option<Duration>) -> Condition {
    let since = idle
        .and_then(|idle| TimeDelta::from_std(idle).ok())
        .and_then(|idle| now.checked_sub_signed(idle));
    Condition::all()
        .add(sessions::COLUMN.expires_at.gt(now))
        .add_option(since.map(|since| sessions::COLUMN.last_seen_at.gt(since)))
}
