//! Calls about sessions.

use std::time::Duration;

use aura_db::{SessionId, SessionRequest, UserId};

use super::Kinds;
use crate::draw::Draw;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::side::{Door, Side};

/// Tokens are handles too: the first that was issued is token 1.
type TokenHandle = usize;

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Issue(UserId, SessionRequest),
    Authenticate(TokenHandle),
    AuthenticateWithin(TokenHandle, Duration),
    Touch(SessionId),
    List(UserId),
    Revoke(SessionId),
    RevokeAll(UserId, Option<SessionId>),
    Rotate(TokenHandle),
    DeleteExpired,
}

/// A copy.
pub(crate) fn wish(request: &SessionRequest) -> SessionRequest {
    request.clone()
}

pub(crate) fn request(draw: &mut Draw<'_>, _: &Model) -> SessionRequest {
    SessionRequest {
        user_agent: draw.maybe(|draw| draw.name(255)),
        ip_address: draw.maybe(|draw| draw.name(64)),
        lifetime: match draw.byte() % 32 {
            0..20 => SessionRequest::default().lifetime,
            20..24 => Duration::from_mins(1),
            24..27 => Duration::from_micros(1),
            27 => Duration::from_nanos(1),
            28 => Duration::from_nanos(60_000_001_999),
            29 => Duration::ZERO,
            30 => Duration::from_hours(24 * 3_660),
            _ => Duration::MAX,
        },
    }
}

fn user(draw: &mut Draw<'_>, model: &Model) -> UserId {
    UserId(draw.handle(model.users.count()))
}

fn session(draw: &mut Draw<'_>, model: &Model) -> SessionId {
    SessionId(draw.handle(model.sessions.count()))
}

fn token(draw: &mut Draw<'_>, model: &Model) -> TokenHandle {
    let count = i64::try_from(model.tokens).unwrap_or(0);
    usize::try_from(draw.handle(count)).map_or(0, |handle| handle.min(model.tokens + 1))
}

macro_rules! kind {
    ($weight:literal, |$draw:ident, $model:ident| $call:expr) => {
        ($weight, |$draw, $model| super::Call::Sessions($call))
    };
}

pub(crate) const KINDS: Kinds = &[
    kind!(40, |draw, model| Call::Issue(
        user(draw, model),
        request(draw, model)
    )),
    kind!(20, |draw, model| Call::Authenticate(token(draw, model))),
    kind!(20, |draw, model| Call::AuthenticateWithin(
        token(draw, model),
        draw.pick(&[
            Duration::from_mins(1),
            Duration::ZERO,
            Duration::from_secs(1),
            Duration::from_micros(1),
            Duration::from_nanos(1_500),
            Duration::from_hours(13),
            Duration::from_hours(2_500_000_000),
            Duration::MAX,
        ])
    )),
    kind!(30, |draw, model| Call::Touch(session(draw, model))),
    kind!(19, |draw, model| Call::List(user(draw, model))),
    kind!(19, |draw, model| Call::Revoke(session(draw, model))),
    kind!(19, |draw, model| Call::RevokeAll(
        user(draw, model),
        draw.maybe(|draw| session(draw, model))
    )),
    kind!(20, |draw, model| Call::Rotate(token(draw, model))),
    kind!(19, |_draw, _model| Call::DeleteExpired),
];

impl Call {
    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let sessions = door.sessions();
        let token = |handle: &TokenHandle| side.ids().token(*handle);
        match self {
            Self::Issue(user, request) => {
                let issued = sessions.issue(side.real(*user), wish(request)).await;
                side.issued(issued.map(Some), true)
            }
            Self::Authenticate(handle) => {
                let token = token(handle);
                side.told(sessions.authenticate(&token).await)
            }
            Self::AuthenticateWithin(handle, idle) => {
                let token = token(handle);
                side.told(sessions.authenticate_within(&token, *idle).await)
            }
            Self::Touch(id) => side.told(sessions.touch(side.real(*id)).await),
            Self::List(user) => side.told(sessions.list(side.real(*user)).await),
            Self::Revoke(id) => side.told(sessions.revoke(side.real(*id)).await),
            Self::RevokeAll(user, but) => {
                let (user, but) = (side.real(*user), but.map(|id| side.real(id)));
                side.told(sessions.revoke_all(user, but).await)
            }
            Self::Rotate(handle) => {
                let token = token(handle);
                side.issued(sessions.rotate(&token).await, false)
            }
            Self::DeleteExpired => side.told(sessions.delete_expired().await),
        }
    }
}
