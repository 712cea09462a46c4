//! Calls about users.

use aura_db::users::{NewOwner, OwnedRows};
use aura_db::{Deleted, NewUser, Role, SessionRequest, UserChange, UserFilter, UserId, UserSort};

use super::Kinds;
use super::pages::Pages;
use super::sessions::{request, wish};
use crate::draw::Draw;
use crate::model::Model;
use crate::outcome::Outcome;
use crate::side::{Door, Side};

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Create {
        name: String,
        email: String,
        password: String,
        role: Role,
    },
    Find(UserId),
    Get(UserId),
    FindByEmail(String),
    GetByEmail(String),
    EmailExists(String),
    List(Query, Pages),
    Update {
        id: UserId,
        name: Option<String>,
        email: Option<String>,
    },
    SetRole(UserId, Role),
    Activate(UserId),
    Deactivate(UserId),
    VerifyPassword(UserId, String),
    ChangePassword(UserId, String, String),
    ResetPassword(UserId, String),
    Login(String, String, SessionRequest),
    Delete(UserId, OwnedRows),
    Transfer(UserId, UserId),
    Restore(UserId),
    Purge(UserId),
}

/// A filter that can be read.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) role: Option<Role>,
    pub(crate) active: Option<bool>,
    pub(crate) text: Option<String>,
    pub(crate) deleted: Deleted,
    pub(crate) sort: UserSort,
    pub(crate) descending: bool,
}

impl Query {
    /// Every user.
    pub(crate) const ALL: Self = Self {
        role: None,
        active: None,
        text: None,
        deleted: Deleted::Included,
        sort: UserSort::Id,
        descending: false,
    };

    fn draw(draw: &mut Draw<'_>) -> Self {
        let sorts = [
            UserSort::Id,
            UserSort::Name,
            UserSort::Email,
            UserSort::CreatedAt,
            UserSort::UpdatedAt,
        ];
        Self {
            role: draw.rarely(4).then(|| role(draw)),
            active: draw.rarely(4).then(|| draw.yes()),
            text: draw.rarely(4).then(|| draw.search()),
            deleted: draw.deleted(),
            sort: draw.pick(&sorts),
            descending: draw.yes(),
        }
    }

    fn filter(&self) -> UserFilter {
        let mut filter = UserFilter::new().deleted(self.deleted).sort(self.sort);
        if let Some(role) = self.role {
            filter = filter.role(role);
        }
        if let Some(active) = self.active {
            filter = filter.active(active);
        }
        if let Some(text) = &self.text {
            filter = filter.text(text);
        }
        if self.descending {
            filter = filter.descending();
        }
        filter
    }
}

fn role(draw: &mut Draw<'_>) -> Role {
    draw.pick(&[
        Role::User,
        Role::Admin,
        Role::Editor,
        Role::Viewer,
        Role::Admin,
    ])
}

fn user(draw: &mut Draw<'_>, model: &Model) -> UserId {
    UserId(draw.handle(model.users.count()))
}

/// The address of somebody, or any.
fn address(draw: &mut Draw<'_>, model: &Model) -> String {
    let user = user(draw, model);
    match model.users.rows.get(&user.0) {
        Some(user) if draw.byte() % 8 != 7 => user.email.clone(),
        _ => draw.email(),
    }
}

/// The password of somebody, most of the time.
fn known(draw: &mut Draw<'_>, model: &Model, user: UserId) -> String {
    match model.users.rows.get(&user.0) {
        Some(user) if draw.byte() % 4 != 3 => user.hashed_password.0.clone(),
        _ => draw.password(),
    }
}

pub(crate) fn create(draw: &mut Draw<'_>, _: &Model) -> super::Call {
    super::Call::Users(Call::Create {
        email: draw.email(),
        role: role(draw),
        name: draw.name(120),
        password: draw.password(),
    })
}

/// Two users, half of the time two who have agents of the same name.
fn heirs(draw: &mut Draw<'_>, model: &Model) -> (UserId, UserId) {
    let is_live = &|id: UserId| {
        let owner = model.users.rows.get(&id.0);
        owner.is_some_and(|owner| owner.deleted_at.is_none())
    };
    let agents = || {
        let rows = model.agents.rows.values();
        rows.filter(move |row| row.deleted_at.is_none() && is_live(row.owner_id))
    };
    let same = agents().flat_map(|mine| {
        let others = agents().filter(|other| other.name == mine.name);
        let others = others.filter(|other| other.owner_id != mine.owner_id);
        others.map(|other| (mine.owner_id, other.owner_id))
    });
    let any = (user(draw, model), user(draw, model));
    draw.rather(same, any)
}

/// One that is deleted, most of the time.
fn gone(draw: &mut Draw<'_>, model: &Model) -> UserId {
    let any = user(draw, model);
    let rows = model.users.rows.values();
    let gone = rows
        .filter(|row| row.deleted_at.is_some())
        .map(|row| row.id);
    draw.rather(gone, any)
}

macro_rules! kind {
    ($weight:literal, |$draw:ident, $model:ident| $call:expr) => {
        ($weight, |$draw, $model| super::Call::Users($call))
    };
}

pub(crate) const KINDS: Kinds = &[
    (18, create),
    kind!(19, |draw, model| Call::Find(user(draw, model))),
    kind!(19, |draw, model| Call::Get(user(draw, model))),
    kind!(19, |draw, model| Call::FindByEmail(address(draw, model))),
    kind!(19, |draw, model| Call::GetByEmail(address(draw, model))),
    kind!(19, |draw, model| Call::EmailExists(address(draw, model))),
    kind!(20, |draw, _model| Call::List(
        Query::draw(draw),
        Pages::draw(draw)
    )),
    kind!(19, |draw, model| Call::Update {
        id: user(draw, model),
        name: draw.maybe(|draw| draw.name(120)),
        email: draw.maybe(Draw::email),
    }),
    kind!(19, |draw, model| Call::SetRole(
        user(draw, model),
        role(draw)
    )),
    kind!(19, |draw, model| Call::Activate(user(draw, model))),
    kind!(19, |draw, model| Call::Deactivate(user(draw, model))),
    kind!(19, |draw, model| {
        let user = user(draw, model);
        Call::VerifyPassword(user, known(draw, model, user))
    }),
    kind!(19, |draw, model| {
        let user = user(draw, model);
        Call::ChangePassword(user, known(draw, model, user), draw.password())
    }),
    kind!(19, |draw, model| Call::ResetPassword(
        user(draw, model),
        draw.password()
    )),
    kind!(19, |draw, model| {
        let user = user(draw, model);
        let email = match model.users.rows.get(&user.0) {
            Some(user) if draw.byte() % 8 != 7 => user.email.to_ascii_uppercase(),
            _ => draw.email(),
        };
        Call::Login(email, known(draw, model, user), request(draw, model))
    }),
    kind!(50, |draw, model| {
        let (from, to) = heirs(draw, model);
        let owned = match draw.byte() % 4 {
            0 => OwnedRows::Refuse,
            1 => OwnedRows::Delete,
            _ => OwnedRows::TransferTo(to),
        };
        Call::Delete(from, owned)
    }),
    kind!(19, |draw, model| {
        let (from, to) = heirs(draw, model);
        Call::Transfer(from, to)
    }),
    kind!(20, |draw, model| Call::Restore(gone(draw, model))),
    kind!(19, |draw, model| Call::Purge(gone(draw, model))),
];

impl Call {
    pub(crate) async fn run(&self, side: &Side, door: &Door) -> Outcome {
        let users = door.users();
        let real = |id: &UserId| side.real(*id);
        match self {
            Self::Create {
                name,
                email,
                password,
                role,
            } => {
                let new = NewUser::new(name, email, password.clone()).role(*role);
                side.made(users.create(new).await, |user| user.id)
            }
            Self::Find(id) => side.told(users.find(real(id)).await),
            Self::Get(id) => side.told(users.get(real(id)).await),
            Self::FindByEmail(email) => side.told(users.find_by_email(email).await),
            Self::GetByEmail(email) => side.told(users.get_by_email(email).await),
            Self::EmailExists(email) => side.told(users.email_exists(email).await),
            Self::List(query, pages) => {
                side.pages(pages, |page| users.list(query.filter(), page))
                    .await
            }
            Self::Update { id, name, email } => {
                let mut change = UserChange::new();
                if let Some(name) = name {
                    change = change.name(name);
                }
                if let Some(email) = email {
                    change = change.email(email);
                }
                side.told(users.update(real(id), change).await)
            }
            Self::SetRole(id, role) => side.told(users.set_role(real(id), *role).await),
            Self::Activate(id) => side.told(users.activate(real(id)).await),
            Self::Deactivate(id) => side.told(users.deactivate(real(id)).await),
            Self::VerifyPassword(id, password) => {
                side.told(users.verify_password(real(id), password.clone()).await)
            }
            Self::ChangePassword(id, old, new) => {
                let changed = users.change_password(real(id), old.clone(), new.clone());
                side.told(changed.await)
            }
            Self::ResetPassword(id, new) => {
                side.told(users.reset_password(real(id), new.clone()).await)
            }
            Self::Login(email, password, request) => {
                let login = users.login(email, password.clone(), wish(request));
                side.issued(login.await.map(Some), true)
            }
            Self::Delete(id, owned) => {
                let owned = match owned {
                    OwnedRows::TransferTo(heir) => OwnedRows::TransferTo(real(heir)),
                    other => *other,
                };
                side.told(users.delete(real(id), owned).await)
            }
            Self::Transfer(from, to) => {
                let moved = users.transfer(real(from), NewOwner(real(to))).await;
                side.told(moved.map(|moved| (moved.workflows, moved.agents)))
            }
            Self::Restore(id) => side.told(users.restore(real(id)).await),
            Self::Purge(id) => side.told(users.purge(real(id)).await),
        }
    }
}
