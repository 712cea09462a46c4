//! Processes in other time zones write the same moments.

use aura_db::{Database, LogFilter, PageRequest};
use testdb::TestDb;
use testdb::process::Running;

use crate::{told, workflow, writer};

testdb::both!(migrated: the_time_zone_is_no_matter);

async fn the_time_zone_is_no_matter(test: TestDb) {
    let flow = workflow(&test).await;
    let db = Database::connect(test.config()).await.expect("it connects");
    // Fourteen hours ahead, twelve behind, and one that no whole hour fits.
    let zones = ["Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu"];
    for (run, zone) in (0..).zip(zones) {
        let before = db.now();
        let once = ["--tasks=1", "--operations=1"];
        let mut writer = writer(&test, flow, run, &once);
        let ended = Running::start(writer.env("TZ", zone)).end();
        assert_eq!(told(&ended.stdout).len(), 1, "{zone}: {ended:?}");
        let filter = LogFilter::workflow(flow.into()).text(format!("{run}:"));
        let list = db.logs().list(filter, PageRequest::first(10)).await;
        let entries = list.expect("a list").items;
        assert!(!entries.is_empty(), "{zone}");
        for entry in entries {
            let written = entry.created_at;
            assert!(
                before <= written && written <= db.now(),
                "{zone}: {written}"
            );
        }
    }
    db.close().await;
}
