//! The service in this process, and a client that remembers what it was told.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aura_db::entity::{sessions, users};
use aura_db::sea_orm::EntityTrait;
use aura_db::{Database, NewUser, Role, User};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use testdb::TestDb;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::app;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// More than any answer should take.
const PATIENCE: Duration = Duration::from_secs(30);
/// An end that takes as long was waited for, and not brought about.
const PROMPT: Duration = Duration::from_secs(3);

/// The service, on a port of the system's choice.
pub(crate) struct Service {
    pub(crate) db: Database,
    client: Client,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl std::ops::Deref for Service {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Service {
    pub(crate) async fn start(test: &TestDb) -> Self {
        let applied = app::runner().up(&test.config()).await;
        applied.expect("its own tables are there");
        let db = Database::connect(test.config()).await.expect("it connects");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let (served, stopped) = (db.clone(), async { drop(stopped.await) });
        Self {
            db,
            client: Client::new(address),
            stop,
            serving: tokio::spawn(app::serve(listener, served, stopped)),
        }
    }

    /// A user of this name and role, who is logged in.
    pub(crate) async fn join(&self, name: &str, role: Role) -> (User, String) {
        let email = format!("{name}@example.org");
        let user = NewUser::new(name, &email, PASSWORD).role(role);
        let user = self.db.users().create(user).await.expect("a user");
        (user, self.login(&email).await)
    }

    /// Stops it. Whatever it said, and whoever still listens: it ends at once,
    /// in order, has told no secret, and its database is closed.
    pub(crate) async fn end(self) {
        self.end_within(PROMPT).await;
    }

    pub(crate) async fn end_within(self, limit: Duration) {
        let mut secrets = vec![PASSWORD.to_owned(), "$argon2".to_owned()];
        // A database that the test closed has nothing to say.
        for user in self
            .db
            .fetch_all(users::Entity::find())
            .await
            .into_iter()
            .flatten()
        {
            secrets.push(user.hashed_password.0);
        }
        for session in self
            .db
            .fetch_all(sessions::Entity::find())
            .await
            .into_iter()
            .flatten()
        {
            secrets.push(session.token.0);
        }
        let Client { said, tokens, .. } = self.client;
        secrets.append(&mut tokens.into_inner().unwrap_or_else(PoisonError::into_inner));
        let said = said.into_inner().unwrap_or_else(PoisonError::into_inner);
        for secret in secrets {
            assert!(!said.contains(&secret), "{secret} was told: {said}");
        }

        let started = Instant::now();
        self.stop.send(()).expect("it runs");
        let ended = timeout(PATIENCE, self.serving).await.expect("it ends");
        ended.expect("no panic").expect("no error");
        assert!(started.elapsed() < limit, "after {:?}", started.elapsed());
        assert!(self.db.ping().await.is_err(), "the database is open");
    }
}

/// An HTTP client, with a connection for each request.
pub(crate) struct Client {
    address: SocketAddr,
    /// All headers and bodies, but those of logins that succeeded.
    said: Mutex<String>,
    tokens: Mutex<Vec<String>>,
}

/// An answer with a body that is read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            said: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let answer = timeout(PATIENCE, async {
            let stream = self.connect().await;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .expect("a connection");
            tokio::spawn(connection);
            sender.send_request(request).await.expect("an answer")
        });
        answer.await.expect("an answer in time")
    }

    async fn ask(&self, method: Method, path: &str, token: &str, body: Option<String>) -> Answer {
        let bearer = format!("Bearer {token}");
        let header = (!token.is_empty()).then_some(("authorization", &*bearer));
        self.ask_with(method, path, header.as_slice(), body).await
    }

    async fn ask_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = Full::from(body.unwrap_or_default());
        let answer = self.send(request.body(body).expect("a request")).await;
        let (head, body) = answer.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.expect("in time");
        let bytes = body.expect("a body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        if !(["/login", "/api-keys"].contains(&path) && head.status.is_success()) {
            self.hear(&format!("{:?}\n{text}\n", head.headers));
        }
        Answer {
            status: head.status,
            headers: head.headers,
            text,
        }
    }

    pub(crate) fn hear(&self, text: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(text);
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(Method::GET, path, token, None).await
    }

    /// Asks with an API key instead of the token of a session.
    pub(crate) async fn get_by_key(&self, path: &str, key: &str) -> Answer {
        let headers = [("x-api-key", key)];
        self.ask_with(Method::GET, path, &headers, None).await
    }

    /// Posts with a key, so that it is done once.
    pub(crate) async fn post_once(
        &self,
        path: &str,
        token: &str,
        key: &str,
        body: &Value,
    ) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", key)];
        let body = Some(body.to_string());
        self.ask_with(Method::POST, path, &headers, body).await
    }

    pub(crate) async fn delete(&self, path: &str, token: &str) -> Answer {
        self.ask(Method::DELETE, path, token, None).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> Answer {
        let body = Some(body.to_string());
        self.ask(Method::POST, path, token, body).await
    }

    pub(crate) async fn put(&self, path: &str, token: &str, body: &Value) -> Answer {
        let body = Some(body.to_string());
        self.ask(Method::PUT, path, token, body).await
    }

    /// Logs in with [`PASSWORD`], and says the token.
    pub(crate) async fn login(&self, email: &str) -> String {
        let login = json!({ "email": email, "password": PASSWORD });
        let answer = self.post("/login", "", &login).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let token = answer.json()["token"].as_str().expect("a token").to_owned();
        self.keep_secret(&token);
        token
    }

    /// Notes what no answer may have in it from now on.
    pub(crate) fn keep_secret(&self, secret: &str) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.push(secret.to_owned());
    }

    /// Follows the log of an execution, from its start or after an event.
    pub(crate) async fn follow(&self, execution: i64, token: &str, after: Option<&str>) -> Events {
        let mut request = Request::builder()
            .uri(format!("/executions/{execution}/logs"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"));
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Full::default()).expect("a request");
        let answer = self.send(request).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Events {
            body: answer.into_body(),
            text: String::new(),
        }
    }
}

/// A server-sent event.
#[derive(Debug, Default, Clone)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

/// A stream of events.
pub(crate) struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    /// The next event, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let text: String = self.text.drain(..end + 2).collect();
                if text.starts_with(':') {
                    continue; // keep-alive
                }
                let mut event = Event::default();
                for line in text.lines() {
                    match line.split_once(": ") {
                        Some(("event", name)) => name.clone_into(&mut event.name),
                        Some(("id", id)) => event.id = Some(id.to_owned()),
                        Some(("data", data)) => {
                            event.data = serde_json::from_str(data).expect("JSON");
                        }
                        _ => {}
                    }
                }
                return Some(event);
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("in time");
            let data = frame?
                .expect("an orderly stream")
                .into_data()
                .expect("data");
            self.text
                .push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    /// All events up to the end of the stream.
    pub(crate) async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}
