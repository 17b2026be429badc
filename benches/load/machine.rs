//! Reads the CPU and memory of processes from the system, and the work of PostgreSQL from its statistics.

use std::{fs, time::Duration};

use sqlx::PgPool;

/// Returns the CPU that a process has used so far, user and system.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in parentheses, may contain anything. utime and stime are the 12th and 13th fields after it.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    // USER_HZ is 100 on every Linux.
    Duration::from_millis(ticks * 10)
}

/// Returns the peak memory of a process, in MiB.
pub fn peak_memory(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Returns the CPU that the whole machine has used so far.
pub fn all_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<u64> =
        stat.lines().next().unwrap().split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect();
    // The fields are user, nice, system, idle, iowait, irq and softirq.
    let busy = fields[0] + fields[1] + fields[2] + fields[5] + fields[6];
    Duration::from_millis(busy * 10)
}

#[derive(Clone, Copy)]
pub struct Database {
    pub commits: i64,
    pub wal_bytes: i64,
}

/// Reads the commits of this database, and the WAL bytes of the whole server.
pub async fn database(pool: &PgPool) -> Database {
    // A session adds its work to the statistics with a delay. This session's own work can be requested.
    let row: (i64, i64) = sqlx::query_as(
        "SELECT xact_commit, (pg_current_wal_insert_lsn() - '0/0')::bigint
         FROM pg_stat_database WHERE datname = current_database()",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    Database { commits: row.0, wal_bytes: row.1 }
}
