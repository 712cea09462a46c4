//! The steps: calls of the public API, with handles for ids.

pub(crate) mod agents;
pub(crate) mod executions;
pub(crate) mod history;
pub(crate) mod logs;
pub(crate) mod notes;
pub(crate) mod pages;
pub(crate) mod plugins;
pub(crate) mod sessions;
pub(crate) mod users;
pub(crate) mod workflows;

use std::time::Duration;

use aura_db::{Isolation, UserId};

use crate::draw::{Draw, Raw};
use crate::model::{Ctx, Model};
use crate::outcome::{Failed, Outcome};

/// One call, or several in a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// How far the clock moves before it.
    pub(crate) tick: Duration,
    pub(crate) who: Who,
    pub(crate) what: What,
}

/// On whose behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// As the one around it; nobody, outside of a transaction.
    Same,
    Acting(UserId),
    Restricted(UserId),
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Call(Call),
    Transaction {
        isolation: Isolation,
        steps: Vec<Step>,
        /// The closure returns an error of its own.
        fails: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Users(users::Call),
    Sessions(sessions::Call),
    Workflows(workflows::Call),
    History(history::Call),
    Executions(executions::Call),
    Logs(logs::Call),
    Plugins(plugins::Call),
    Agents(agents::Call),
    Notes(notes::Call),
    /// A statement of our own that fails: it inserts a user with this address,
    /// which is taken.
    Broken(String),
}

impl Call {
    /// Whether it begins with a filter and a page.
    pub(crate) fn lists(&self) -> bool {
        match self {
            Self::Users(call) => matches!(call, users::Call::List(..)),
            Self::Workflows(call) => {
                use workflows::Call::{List, ListFull};
                matches!(call, List(..) | ListFull(..))
            }
            Self::Executions(call) => {
                use executions::Call::{List, ListFull, Stats};
                matches!(call, List(..) | ListFull(..) | Stats(..))
            }
            Self::Logs(call) => matches!(call, logs::Call::List(..) | logs::Call::Stats(..)),
            Self::Plugins(call) => {
                use plugins::Call::{List, ListFull};
                matches!(call, List(..) | ListFull(..))
            }
            Self::Agents(call) => {
                use agents::Call::{List, ListFull};
                matches!(call, List(..) | ListFull(..))
            }
            Self::Sessions(_) | Self::History(_) | Self::Notes(_) | Self::Broken(_) => false,
        }
    }

    /// The method, such as `users.create`.
    pub(crate) fn method(&self) -> String {
        let (repository, debug) = match self {
            Self::Users(call) => ("users", format!("{call:?}")),
            Self::Sessions(call) => ("sessions", format!("{call:?}")),
            Self::Workflows(call) => ("workflows", format!("{call:?}")),
            Self::History(call) => ("workflows", format!("{call:?}")),
            Self::Executions(call) => ("executions", format!("{call:?}")),
            Self::Logs(call) => ("logs", format!("{call:?}")),
            Self::Plugins(call) => ("plugins", format!("{call:?}")),
            Self::Agents(call) => ("agents", format!("{call:?}")),
            Self::Notes(call) => ("notes", format!("{call:?}")),
            Self::Broken(_) => ("", "execute".to_owned()),
        };
        let end = debug.find(|c: char| !c.is_alphanumeric());
        let mut method = format!("{repository}.");
        for (index, c) in debug[..end.unwrap_or(debug.len())].char_indices() {
            if c.is_uppercase() && index > 0 {
                method.push('_');
            }
            method.push(c.to_ascii_lowercase());
        }
        method
    }
}

/// The variants of a `Call`, each with how often it is drawn.
pub(crate) type Kinds = &'static [(u16, fn(&mut Draw<'_>, &Model) -> Call)];

const REPOSITORIES: &[Kinds] = &[
    users::KINDS,
    sessions::KINDS,
    workflows::KINDS,
    history::KINDS,
    executions::KINDS,
    logs::KINDS,
    plugins::KINDS,
    agents::KINDS,
    notes::KINDS,
];

/// A sequence is about everything, and more about one of these, so that it gets
/// further than to the first row.
const THEMES: &[&[Kinds]] = &[
    &[users::KINDS],
    &[sessions::KINDS],
    &[users::KINDS, agents::KINDS],
    &[workflows::KINDS, history::KINDS],
    &[users::KINDS],
    &[executions::KINDS],
    &[logs::KINDS, executions::KINDS],
    &[plugins::KINDS, workflows::KINDS],
    &[agents::KINDS],
    &[plugins::KINDS],
    &[notes::KINDS],
    &[users::KINDS, agents::KINDS],
];

/// Of so many steps one is a transaction around the next few.
const TRANSACTIONS: u16 = 14;

fn call(kind: u16, repositories: &[Kinds], draw: &mut Draw<'_>, model: &Model) -> Call {
    let kinds = || repositories.iter().copied().flatten();
    let total: u16 = kinds().map(|(weight, _)| weight).sum();
    let mut place = kind % total;
    for (weight, kind) in kinds() {
        if place < *weight {
            return kind(draw, model);
        }
        place -= weight;
    }
    unreachable!("the place is below the total")
}

/// Makes the next step out of one or several raw ones, and tells what the model
/// says that it comes to.
pub(crate) fn next(
    model: &mut Model,
    around: Ctx,
    inside: bool,
    rest: &mut std::slice::Iter<'_, Raw>,
) -> Option<(Step, Outcome)> {
    let raw = rest.next()?;
    let mut draw = Draw::new(&raw.bytes);
    let tick = draw.tick();
    model.now += tick;
    let user = UserId(draw.handle(model.users.count()));
    let who = match draw.byte() % 16 {
        _ if around.restricted => Who::Same,
        10..13 => Who::Acting(user),
        13.. => Who::Restricted(user),
        _ => Who::Same,
    };
    let ctx = around.with(who);
    let transaction = raw.kind % TRANSACTIONS == TRANSACTIONS - 1;
    if transaction && !(inside && draw.rarely(2)) {
        let (what, outcome) = transact(model, ctx, &mut draw, rest);
        return Some((Step { tick, who, what }, outcome));
    }
    let call = if inside && !ctx.restricted && draw.byte() % 16 == 15 {
        let taken = model.users.rows.values().next();
        taken.map(|user| Call::Broken(user.email.clone()))
    } else {
        None
    };
    let call = match call {
        Some(call) => call,
        // Without anybody there is little to do.
        None if model.users.count() < 2 => users::create(&mut draw, model),
        None if model.workflows.count() == 0 && draw.yes() => workflows::create(&mut draw, model),
        None => call_of(raw, &mut draw, model),
    };
    let outcome = model.call(ctx, &call);
    let what = What::Call(call);
    Some((Step { tick, who, what }, outcome))
}

fn call_of(raw: &Raw, draw: &mut Draw<'_>, model: &Model) -> Call {
    let kind = raw.kind / TRANSACTIONS;
    if draw.yes() {
        call(kind, THEMES[raw.theme % THEMES.len()], draw, model)
    } else {
        call(kind, REPOSITORIES, draw, model)
    }
}

fn transact(
    model: &mut Model,
    ctx: Ctx,
    draw: &mut Draw<'_>,
    rest: &mut std::slice::Iter<'_, Raw>,
) -> (What, Outcome) {
    let isolations = [
        Isolation::Default,
        Isolation::ReadCommitted,
        Isolation::RepeatableRead,
        Isolation::Serializable,
    ];
    let isolation = draw.pick(&isolations);
    let fails = draw.rarely(5);
    let count = draw.byte() % 5 + 1;
    let what = |steps| What::Transaction {
        isolation,
        steps,
        fails,
    };
    if model.broken {
        // Not even begun.
        return (what(Vec::new()), Outcome::of(Err(Failed::Aborted)));
    }
    let before = model.clone();
    let in_transaction = std::mem::replace(&mut model.in_transaction, true);
    let (mut steps, mut inner) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let Some((step, outcome)) = next(model, ctx, true, rest) else {
            break;
        };
        steps.push(step);
        inner.push(outcome);
    }
    let result = match (fails, model.broken) {
        (true, _) => Err(Failed::Chosen),
        (false, true) => Err(Failed::Aborted),
        (false, false) => Ok(serde_json::json!("committed")),
    };
    if result.is_err() {
        // Time isn't undone.
        let (now, turns) = (model.now, std::mem::take(&mut model.turns));
        *model = before;
        model.now = now;
        model.turns.roll_back(turns, in_transaction);
    } else if !in_transaction {
        model.turns.commit();
    }
    model.in_transaction = in_transaction;
    let outcome = Outcome {
        inner,
        ..Outcome::of(result)
    };
    (what(steps), outcome)
}
