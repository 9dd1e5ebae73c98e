//! The plan of every hot read: on an empty table that was never analysed, as on the first day, and on a filled and analysed
//! one; with the values known to the planner, and without.

use super::{DEBIAN, fill, lines, major, new_store, run};
use crate::postgres::PostgresOptions;
use crate::postgres::append::{group, single};
use crate::postgres::connection::planner::BY_INDEX;
use crate::postgres::connection::pool;
use crate::postgres::read::{as_of, horizon, pages, streams};
use crate::postgres::snapshots;

/// The plans of all hot reads, each with where it was found.
async fn plans(connection: &mut sqlx::PgConnection, when: &str, found: &mut Vec<(&'static str, String, Vec<String>)>) {
    // The number of the table is another one in each database.
    let number = lines(connection, "SELECT 'annals.events'::regclass::oid::text ORDER BY 1").await;
    let number = format!("'{}'::oid", number[0]);
    let reads = [
        pages::hot_reads(),
        as_of::hot_reads(),
        horizon::hot_reads(),
        streams::hot_reads(),
        single::hot_reads(),
        group::hot_reads(),
        pool::hot_reads(),
        snapshots::hot_reads(),
    ];
    for (name, text, values) in reads.concat() {
        for mode in ["custom", "generic"] {
            // `unnest` takes arrays of anything.
            let types = if text.contains("unnest($1, $2)") { "(text[], text[])" } else { "" };
            let prepare = format!("SET plan_cache_mode = force_{mode}_plan; PREPARE hot{types} AS {text}");
            run(connection, &prepare).await;
            let plan = lines(connection, &format!("EXPLAIN (COSTS OFF) EXECUTE hot{values}")).await;
            let costs = lines(connection, &format!("EXPLAIN EXECUTE hot{values}")).await;
            run(connection, "DEALLOCATE hot").await;
            let shown = plan.join("\n");
            let whole = plan.iter().any(|line| line.contains("Seq Scan") || line.contains("Disabled"));
            assert!(!whole, "{name} reads a whole table ({when}, {mode}):\n{shown}");
            let sorted = (name.starts_with("READ") || name.starts_with("LOAD")) && sorts_many(&plan);
            assert!(!sorted, "{name} sorts rows that the index has in order ({when}, {mode}):\n{shown}");
            assert!(!costs[0].contains("cost=1000000"), "{name} has no index ({when}, {mode}):\n{}", costs[0]);
            let plan = plan
                .iter()
                .map(|line| format!("    {}\n", line.replace(&number, "'annals.events'::regclass")))
                .collect();
            let at = format!("{when} {mode}");
            match found.iter_mut().find(|(known, same, _)| *known == name && *same == plan) {
                Some((_, _, places)) => places.push(at),
                None => found.push((name, plan, vec![at])),
            }
        }
    }
}

/// Whether a plan sorts more than the one row that is found by its position.
fn sorts_many(plan: &[String]) -> bool {
    let sorts = |line: &String| line.trim_start_matches([' ', '-', '>']) == "Sort";
    (0..plan.len())
        .filter(|&at| sorts(&plan[at]))
        .any(|at| !plan.get(at + 3).is_some_and(|line| line.contains("Index Cond: (\"position\" = ")))
}

#[tokio::test]
async fn hot_reads_use_their_indexes() {
    let (_database, mut connection) = new_store().await;
    for (setting, value) in BY_INDEX {
        run(&mut connection, &format!("SET {setting} = {value}")).await;
    }
    let mut found = Vec::new();
    plans(&mut connection, "empty", &mut found).await;
    fill(&mut connection).await;
    plans(&mut connection, "unanalysed", &mut found).await;
    run(&mut connection, "ANALYZE annals.events, annals.request_keys, annals.snapshots").await;
    plans(&mut connection, "filled", &mut found).await;
    // Other versions print plans differently.
    if major(&mut connection).await == DEBIAN {
        found.sort_by_key(|(name, ..)| *name);
        let text: String =
            found.iter().map(|(name, plan, places)| format!("{name} ({})\n{plan}", places.join(", "))).collect();
        insta::assert_snapshot!("plans", text);
    }
}

/// The caller's own tables may have no index for their queries.
#[tokio::test]
async fn own_statements_have_the_default_planner_and_ours_use_indexes_again_afterwards() {
    let (database, _connection) = new_store().await;
    let store = PostgresOptions::new(database.url()).connections(1).open().await.unwrap();
    let setting = "SELECT current_setting('enable_seqscan') || current_setting('enable_bitmapscan') ORDER BY 1";
    assert_eq!(lines(&mut store.database().read().await.unwrap(), setting).await, ["onon"]);
    let mut own = store.database().begin().await.unwrap();
    assert_eq!(lines(&mut own, setting).await, ["onon"]);
    own.commit().await.unwrap();
    let mut connection = store.pool().take().await.unwrap();
    let ours = connection.fetch_all(sqlx::query(setting)).await.unwrap();
    assert_eq!(sqlx::Row::get::<String, _>(&ours[0], 0), "offoff");
}
