//! Sessions.

use std::time::Duration;

use aura_db::entity::TokenHash;
use aura_db::sessions::TOUCH_INTERVAL;
use aura_db::{Action, Resource, Session, SessionId, SessionRequest, UserId};
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::check::Check;
use super::{Answer, Ctx, Model};
use crate::outcome::{Failed, json_of};
use crate::steps::sessions::Call;

impl Model {
    pub(super) fn sessions(&mut self, ctx: Ctx, call: &Call) -> Answer {
        let may = |action| self.enter(ctx, action, Resource::User);
        match call {
            Call::Issue(user, request) => {
                Self::requested(request)?;
                may(Action::Update)?;
                match self.able(*user) {
                    Some(_) => Ok(self.open_session(*user, request)),
                    None => Err(Failed::not_found("active user", &user)),
                }
            }
            Call::Authenticate(token) => {
                may(Action::Read)?;
                let who = self.whose(self.by_token(*token));
                self.forget_expired(*token);
                Ok(who)
            }
            Call::AuthenticateWithin(token, idle) => {
                may(Action::Read)?;
                let session = self.by_token(*token).filter(|session| {
                    let since = (self.now - session.last_seen_at).to_std();
                    since.is_ok_and(|since| since <= *idle)
                });
                let who = self.whose(session);
                self.forget_expired(*token);
                Ok(who)
            }
            Call::Touch(id) => {
                may(Action::Update)?;
                let now = self.now;
                let session = self.sessions.rows.get(&id.0);
                if !session.is_some_and(|session| self.valid(session)) {
                    return Ok(json!(false));
                }
                if let Some(session) = self.sessions.rows.get_mut(&id.0)
                    && (now - session.last_seen_at)
                        .to_std()
                        .is_ok_and(|d| d >= TOUCH_INTERVAL)
                {
                    session.last_seen_at = now;
                    session.updated_at = now;
                }
                Ok(json!(true))
            }
            Call::List(user) => {
                may(Action::Read)?.owned(*user)?;
                let theirs = self.sessions.rows.values().rev();
                let theirs = theirs.filter(|row| row.user_id == *user && self.valid(row));
                Ok(json_of(theirs.collect::<Vec<_>>()))
            }
            Call::Revoke(id) => {
                may(Action::Update)?;
                Ok(json!(self.sessions.rows.remove(&id.0).is_some()))
            }
            Call::RevokeAll(user, but) => {
                may(Action::Update)?;
                Ok(self.end(|row| row.user_id == *user && Some(row.id) != *but))
            }
            Call::Rotate(token) => {
                may(Action::Update)?;
                let session = self.by_token(*token).map(|session| session.id);
                let Some(id) = session else {
                    self.forget_expired(*token);
                    return Ok(Value::Null);
                };
                self.tokens += 1;
                let (now, token) = (self.now, self.tokens);
                let session = self.sessions.rows.get_mut(&id.0);
                let session = session.ok_or(Failed::Credentials)?;
                session.token = TokenHash(token.to_string());
                session.last_seen_at = now;
                session.updated_at = now;
                Ok(json_of(&*session))
            }
            Call::DeleteExpired => {
                may(Action::Delete)?;
                let now = self.now;
                Ok(self.end(|row| row.expires_at <= now))
            }
        }
    }

    /// What is wrong with a request.
    pub(super) fn requested(request: &SessionRequest) -> Result<(), Failed> {
        let mut check = Check::default();
        // A long one is cut.
        let agent = request.user_agent.as_ref();
        let agent = agent.map(|agent| agent.chars().take(255).collect());
        check.optional("user_agent", agent.as_ref(), 255);
        check.optional("ip_address", request.ip_address.as_ref(), 64);
        let years = Duration::from_hours(24 * 3_660);
        check.refuse(
            "lifetime",
            request.lifetime.is_zero() || request.lifetime > years,
        );
        check.done()
    }

    pub(super) fn open_session(&mut self, user: UserId, request: &SessionRequest) -> Value {
        self.tokens += 1;
        let (now, token) = (self.now, self.tokens);
        let micros = i64::try_from(request.lifetime.as_micros())
            .unwrap_or(i64::MAX)
            .max(1);
        let agent = request.user_agent.as_ref();
        json_of(self.sessions.insert(|id| Session {
            id: SessionId(id),
            token: TokenHash(token.to_string()),
            user_agent: agent.map(|agent| agent.chars().take(255).collect()),
            ip_address: request.ip_address.clone(),
            expires_at: now + TimeDelta::microseconds(micros),
            last_seen_at: now,
            created_at: now,
            updated_at: now,
            user_id: user,
        }))
    }

    fn valid(&self, session: &Session) -> bool {
        session.expires_at > self.now && self.able(session.user_id).is_some()
    }

    /// The session that is still valid and has this token.
    fn by_token(&self, token: usize) -> Option<&Session> {
        let token = token.to_string();
        let mut sessions = self.sessions.rows.values();
        sessions.find(|session| session.token.0 == token && self.valid(session))
    }

    /// Who comes with an expired token comes for the last time.
    fn forget_expired(&mut self, token: usize) {
        let (now, token) = (self.now, token.to_string());
        self.end(|row| row.token.0 == token && row.expires_at <= now);
    }

    fn whose(&self, session: Option<&Session>) -> Value {
        let Some(session) = session else {
            return Value::Null;
        };
        json!({"user": self.able(session.user_id), "session": session})
    }

    fn end(&mut self, which: impl Fn(&Session) -> bool) -> Value {
        let before = self.sessions.rows.len();
        self.sessions.rows.retain(|_, session| !which(session));
        json!(before - self.sessions.rows.len())
    }
}
