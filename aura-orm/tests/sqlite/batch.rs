//! Writes that share a commit.

use std::sync::Arc;

use aura_orm::sqlite::{Error, Write};

use crate::{Engine, put};

/// Writes that wait together share one commit: of a hundred, all are visible at
/// once, and none before.
pub(crate) async fn who_waits_together_is_committed_together(engine: Engine) {
    let engine = Arc::new(engine);
    // On a busy machine the first may lose the connection while the others get in
    // line. They share no commit with it then, and all of it is done once more.
    for round in 0..20 {
        let before = engine.list().await.len();
        if commit_together(&engine, round).await {
            assert_eq!(engine.list().await.len(), before + 101);
            return;
        }
    }
    panic!("the first write lost the connection each time");
}

/// Returns false if the first write was reclaimed.
async fn commit_together(engine: &Arc<Engine>, round: usize) -> bool {
    let before = engine.list().await.len();
    let mut first = engine.begin().await;
    let mut others = Vec::new();
    for id in 0..100 {
        let write = move |mut write: Write| async move {
            put(&mut write, format!("{round}-{id}")).await?;
            write.commit().await
        };
        others.push(engine.queued(write).await);
    }
    let reclaimed = match put(&mut first, format!("{round}-first")).await {
        Err(Error::Reclaimed) => true,
        inserted => {
            inserted.expect("inserted");
            false
        }
    };
    let seen = {
        let engine = engine.clone();
        tokio::spawn(async move {
            loop {
                let seen = engine.list().await.len() - before;
                if seen > 0 {
                    return seen;
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let committed = !reclaimed && first.commit().await.is_ok();
    for other in others {
        other.await.expect("it ends").expect("committed");
    }
    let seen = seen.await.expect("it ends");
    assert!(!committed || seen == 101, "{seen}");
    committed
}
