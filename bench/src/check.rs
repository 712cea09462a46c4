//! Whether the peers do the same.

use serde_json::Value;

use crate::Result;
use crate::databases::{self, Databases};
use crate::peer::Name;
use crate::plan::Plan;
use crate::process::Worker;
use crate::protocol::{Request, Response};
use crate::workload::Durability;

/// Whether all give the same answers and write the same rows, with the same
/// durability.
pub(crate) async fn check(
    plan: &Plan<'_>,
    databases: &mut Databases,
    peers: &[Name],
    durability: Durability,
) -> Result<()> {
    let backend = databases.backend;
    let mut first: Option<(Name, Value, Value)> = None;
    for &peer in peers {
        let target = databases.copy().await?;
        let setup = plan.setup(peer, &target, durability);
        let mut worker = Worker::open(&plan.programs, &setup).await?;
        let Response::Answers(answers) = worker.ask(&Request::Check {}).await? else {
            return Err(format!("{} gave another answer", peer.title()).into());
        };
        worker.close().await;
        if answers["durability"] != durability.said_by(backend) {
            let (said, wanted) = (&answers["durability"], durability.said_by(backend));
            let name = peer.title();
            return Err(format!("{name}: its durability is {said}, not \"{wanted}\"").into());
        }
        let written = databases::written(&target).await?;
        databases.remove(target).await?;
        match &first {
            None if !peer.is_queue() => first = Some((peer, answers, written)),
            None => {}
            Some((other, theirs, rows)) => {
                let pair = format!("{} and {}", other.title(), peer.title());
                if let Some(place) =
                    difference(&shared(theirs, &answers), &shared(&answers, theirs))
                {
                    return Err(format!("{pair} don't give the same answers: {place}").into());
                }
                if let Some(place) = difference(rows, &written)
                    && !peer.is_queue()
                {
                    return Err(format!("{pair} don't write the same rows: {place}").into());
                }
            }
        }
    }
    Ok(())
}

/// The answers to what both were asked.
fn shared(answers: &Value, with: &Value) -> Value {
    let mut answers = answers.clone();
    if let (Value::Object(answers), Value::Object(with)) = (&mut answers, with) {
        answers.retain(|operation, _| with.contains_key(operation));
    }
    answers
}

/// The first place where two documents differ.
fn difference(one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        _ if one == other => None,
        (Value::Object(left), Value::Object(right)) if left.len() == right.len() => {
            left.iter().find_map(|(key, value)| {
                let place = difference(value, right.get(key).unwrap_or(&Value::Null))?;
                Some(format!(".{key}{place}"))
            })
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(nth, (one, other))| Some(format!("[{nth}]{}", difference(one, other)?))),
        _ => Some(format!(": {one} and {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_is_told_with_its_place() {
        let one = json!({"rows": [{"id": 1}, {"id": 2}], "durability": "on"});
        let mut other = one.clone();
        assert_eq!(difference(&one, &other), None);
        other["rows"][1]["id"] = json!(3);
        assert_eq!(difference(&one, &other).unwrap(), ".rows[1].id: 2 and 3");
        other["rows"] = json!([]);
        assert!(difference(&one, &other).unwrap().starts_with(".rows: ["));
    }

    #[test]
    fn what_only_one_was_asked_is_not_compared() {
        let one = json!({"append": 1, "repository_update": {"id": 2}});
        let other = json!({"append": 2});
        assert_eq!(shared(&one, &other), json!({"append": 1}));
        assert_eq!(shared(&other, &one), other);
    }
}
