//! Which template a set of steps has.

use std::hash::{DefaultHasher, Hash, Hasher};

use sea_orm::DbBackend;

use crate::migration::Runner;

/// Returns a number that changes with the steps of a schema: their names, their statements,
/// and for Rust code the build that it is in.
pub(super) fn fingerprint(schema: &[Runner], backend: DbBackend) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut has_code = false;
    for runner in schema {
        let mut next = Some(runner);
        while let Some(runner) = next {
            runner.history().hash(&mut hasher);
            for step in runner.migrations() {
                (step.name(), step.up(backend)).hash(&mut hasher);
                has_code |= step.data().is_some();
            }
            next = runner.base();
        }
    }
    if has_code {
        let program = std::env::current_exe().ok();
        let built = program.as_ref().and_then(|path| path.metadata().ok());
        let built = built.and_then(|metadata| metadata.modified().ok());
        (program, built).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Migration;

    struct Step(&'static str);

    impl Migration for Step {
        fn name(&self) -> &'static str {
            "m1"
        }

        fn up(&self, _: DbBackend) -> Vec<String> {
            vec![self.0.to_owned()]
        }
    }

    #[test]
    fn other_steps_have_another_template() {
        let runner = |sql| Runner::builder().steps(vec![Box::new(Step(sql))]).build();
        let of = |schema: &[Runner]| fingerprint(schema, DbBackend::Sqlite);
        let base = runner("CREATE TABLE a (b)");
        let alone = of(std::slice::from_ref(&base));
        assert_eq!(alone, of(&[runner("CREATE TABLE a (b)")]));
        let with_base = |base| Runner::builder().history("more").after(base).build();
        let different = [
            of(&[]),
            alone,
            of(&[runner("CREATE TABLE a (c)")]),
            of(&[with_base(base)]),
            of(&[with_base(runner("CREATE TABLE a (c)"))]),
        ];
        let distinct: std::collections::BTreeSet<_> = different.iter().collect();
        assert_eq!(distinct.len(), different.len());
    }
}
