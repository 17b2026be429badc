//! Measures the reading commands with ten million records.

use std::time::Instant;

use sqlx::AssertSqlSafe;

use super::{CONDITIONS, make_records};
use crate::support::Setup;

/// Measures the reading commands, and prints their plans. `RECORDS=10000000 cargo nextest run --run-ignored only
/// --no-capture -E 'test(reading_commands_at_ten_million)'` needs 12 GB and half an hour.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "half an hour and 12 GB at ten million records"]
async fn reading_commands_at_ten_million_records() {
    let records = std::env::var("RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_000);
    let env = Setup::default().build().await;
    let _worker = env.start_worker().await;
    make_records(&env, records).await;
    let middle = format!("po_{}", records / 2);
    let mut commands: Vec<Vec<&str>> =
        vec![vec!["status"], vec!["status", "--without-broker"], vec!["show", &middle]];
    for (condition, _) in CONDITIONS {
        commands.push(vec!["list", "--where", condition]);
        commands.push(vec!["list", "--where", condition, "--oldest-first"]);
        commands.push(vec!["list", "--where", condition, "--count"]);
    }
    for command in &commands {
        // The first run fills the caches. The second one is measured.
        env.run(command);
        let started = Instant::now();
        let output = env.run(command);
        let took = started.elapsed();
        let rows = String::from_utf8_lossy(&output.stdout).lines().count();
        println!("{:>6} ms  {rows:>3} lines  {}", took.as_millis(), command.join(" "));
        if !output.stderr.is_empty() {
            println!("           {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
    }
    // These are the plans that the server used.
    let database = env.pool.connect_options().get_database().unwrap().to_owned();
    let explain = format!(
        "ALTER DATABASE {database} SET session_preload_libraries = 'auto_explain';
         ALTER DATABASE {database} SET auto_explain.log_min_duration = 0;
         ALTER DATABASE {database} SET auto_explain.log_analyze = on;
         ALTER DATABASE {database} SET auto_explain.log_level = warning;"
    );
    sqlx::raw_sql(AssertSqlSafe(explain)).execute(&env.pool).await.unwrap();
    for command in commands {
        let output = env.run(&command);
        println!("--- {}\n{}", command.join(" "), String::from_utf8_lossy(&output.stderr));
    }
}
