//! What a client is told when something fails.

use aura_db::Error;
use aura_db::password::PasswordError;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An error as the client sees it: a status and `{"error": …}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Value,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            body: json!({ "error": error.into() }),
        }
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "log in first")
    }

    pub(crate) fn message(&self) -> &Value {
        &self.body["error"]
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.body[key] = value;
        self
    }
}

/// The one place that decides what becomes of an error. What the client can do
/// something about is told in the words of `Display`, which hold no secret. The
/// rest is for the log: what the database said is nobody else's business.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Validation(_)
            | Error::Unsound { .. }
            | Error::TooLong { .. }
            | Error::NotNull { .. }
            | Error::Check { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Password(PasswordError::Empty | PasswordError::TooLong) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Error::Credentials => StatusCode::UNAUTHORIZED,
            Error::Forbidden { .. } => StatusCode::FORBIDDEN,
            Error::NotFound { .. } => StatusCode::NOT_FOUND,
            Error::Conflict { .. }
            | Error::Stale { .. }
            | Error::State { .. }
            | Error::ForeignKey { .. }
            | Error::OwnsRows { .. } => StatusCode::CONFLICT,
            Error::Busy { .. } | Error::Timeout { .. } | Error::Unavailable { .. } => {
                tracing::warn!("{}", chain(&error));
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "try again in a moment");
            }
            // Without Retry-After: a client that repeats by itself would do it twice.
            Error::OutcomeUnknown { .. } => {
                tracing::error!("{}", chain(&error));
                let message = "it may have been done; look before doing it again";
                return Self::new(StatusCode::GATEWAY_TIMEOUT, message);
            }
            _ => {
                tracing::error!("{}", chain(&error));
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong");
            }
        };
        let told = Self::new(status, error.to_string());
        match error {
            Error::Validation(fields) => told.with("fields", json!(fields)),
            Error::Unsound { problems, .. } => told.with("problems", json!(problems)),
            Error::Stale { read, found, .. } => {
                told.with("read", read.into()).with("found", found.into())
            }
            _ => told,
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let header = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "1")),
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
            _ => None,
        };
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some((name, value)) = header {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// An error with its causes. `Display` never repeats its source.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}
