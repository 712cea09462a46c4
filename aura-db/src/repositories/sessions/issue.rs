//! How a session is opened.

use std::time::Duration;

use chrono::TimeDelta;
use entity::{PasswordHash, UserId, sessions, users};
use sea_orm::sea_query::{Expr, LockType, Query};
use sea_orm::{ColumnTrait, DbBackend};

use super::{Issued, SESSION_LIFETIME, Token, is_active};
use crate::context::Context;
use crate::error::Error;
use crate::validate::Check;

/// The longest life of a session, ten years: no date can overflow.
const LONGEST_LIFETIME: Duration = Duration::from_hours(10 * 366 * 24);

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

/// A session that is checked and has its token.
pub(crate) struct Ready {
    request: SessionRequest,
    lifetime: TimeDelta,
    token: Token,
}

impl Ready {
    pub(crate) fn new(mut request: SessionRequest) -> Result<Self, Error> {
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
    pub(crate) async fn insert(
        &self,
        h: &Context,
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
                is_active()
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
            context: "building a statement",
            source: source.to_string().into(),
        })?;
        let session = h.insert_returning::<sessions::Entity>(insert).await?;
        Ok(session.map(|session| Issued {
            token: self.token.clone(),
            session,
        }))
    }
}
