//! Who calls.

use std::time::Duration;

use aura_db::secrecy::ExposeSecret;
use aura_db::{Restricted, SessionId, SessionRequest, Token, User};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;

use super::tables::api_keys;
use super::{ApiError, App};

/// A session that nobody uses for so long is over.
const IDLE: Duration = Duration::from_hours(24);

/// The user of a request with the token of a session or an API key. A handler that takes it is closed to
/// everybody else; put it first, before the body.
pub(crate) struct Caller {
    /// The database as the caller's role may use it: handlers of callers use no
    /// other.
    pub(crate) db: Restricted,
    pub(crate) user: User,
    /// None with an API key.
    session: Option<SessionId>,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let (user, session) = if let Some(key) = api_key(&parts.headers) {
            let key = api_keys::authenticate(&app.db, &key).await?;
            let owner = key.ok_or_else(ApiError::unauthorized)?.owner_id;
            (app.db.users().find(owner).await?, None)
        } else {
            let token = bearer(&parts.headers).ok_or_else(ApiError::unauthorized)?;
            let sessions = app.db.sessions();
            let who = sessions.authenticate_within(&token, IDLE).await?;
            let who = who.ok_or_else(ApiError::unauthorized)?;
            sessions.touch(who.session.id).await?; // writes at most once a minute
            (Some(who.user), Some(who.session.id))
        };
        let user = user.filter(|user| user.is_active);
        let user = user.ok_or_else(ApiError::unauthorized)?;
        Ok(Self {
            db: app.db.restricted_to(&user),
            user,
            session,
        })
    }
}

fn api_key(headers: &HeaderMap) -> Option<Token> {
    headers.get("x-api-key")?.to_str().ok().map(Token::new)
}

fn bearer(headers: &HeaderMap) -> Option<Token> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    bearer.then(|| Token::new(token.trim()))
}

// Without `Debug`: nothing can log it by accident.
#[derive(Deserialize)]
pub(crate) struct Login {
    email: String,
    password: String,
}

pub(crate) async fn login(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<impl IntoResponse, ApiError> {
    // The reason of a rejection may quote the body, and so the password.
    let Ok(Json(login)) = body else {
        let what = r#"the body must be JSON: {"email": "…", "password": "…"}"#;
        return Err(ApiError::new(StatusCode::BAD_REQUEST, what));
    };
    let agent = headers.get(header::USER_AGENT);
    let request = SessionRequest {
        user_agent: agent
            .and_then(|agent| agent.to_str().ok())
            .map(str::to_owned),
        ..SessionRequest::default()
    };
    let issued = app.db.login(&login.email, login.password, request).await?;
    let body = json!({
        "token": issued.token.expose_secret(), // the only time that it is shown
        "expires_at": issued.session.expires_at,
    });
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)))
}

pub(crate) async fn logout(State(app): State<App>, caller: Caller) -> Result<StatusCode, ApiError> {
    let session = caller.session.ok_or_else(|| {
        let what = "an API key has no session to end";
        ApiError::new(StatusCode::CONFLICT, what)
    })?;
    app.db.sessions().revoke(session).await?;
    tracing::info!(user = %caller.user.id, "logged out");
    Ok(StatusCode::NO_CONTENT)
}
