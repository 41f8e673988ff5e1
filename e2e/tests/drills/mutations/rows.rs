//! Changes of one row of the database, and how they are taken back.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use autobuild::api::Server;
use autobuild::job::Action;
use e2e::fleet::LIMIT;
use e2e::wait::{Look, wait_for};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use sqlx::{AssertSqlSafe, MySqlPool, Row as _};

use super::forged::{self, ForgedJob, Wishes};

/// The tables with rows of one server each, in the order of their locks.
const TABLES: [&str; 6] =
    ["server_state", "inventory", "machine", "handled_token", "bmc_claim", "job_history"];

/// The tables with rows of no server, or of several.
const SHARED: [&str; 4] = ["login", "permit", "budget", "worker"];

/// A column.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    is_nullable: bool,
    is_number: bool,
    is_key: bool,
    default: Option<String>,
    longest: i64,
}

/// A row: its values by column, as text.
type Values = BTreeMap<String, Option<String>>;

/// What is done to a row.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// One column gets another value.
    Set { table: &'static str, uid: String, of: Values, column: String, value: Option<String> },
    /// The row goes.
    Delete { table: &'static str, uid: String, of: Values },
    /// A job that nobody enqueued.
    Job { uid: String, intent: String, job: ForgedJob },
}

/// What was done to a row that several servers share.
#[derive(Debug)]
pub(super) struct Shared {
    table: &'static str,
    column: String,
    before: Values,
    value: Option<String>,
}

/// The database of a fleet at rest.
pub(super) struct Tables {
    pool: MySqlPool,
    columns: BTreeMap<&'static str, Vec<Column>>,
    kept: BTreeMap<String, Vec<(&'static str, Values)>>,
    wishes: Wishes,
}

impl Tables {
    pub(super) async fn read(pool: &MySqlPool, wishes: Wishes) -> Result<Self> {
        let mut columns = BTreeMap::new();
        for table in TABLES.into_iter().chain(SHARED) {
            let rows = sqlx::query(
                "SELECT CAST(column_name AS CHAR) AS name, CAST(is_nullable AS CHAR) AS nullable, CAST(data_type AS CHAR) AS kind, \
                 CAST(column_key AS CHAR) AS part, \
                 CAST(column_default AS CHAR) AS preset, CAST(COALESCE(character_maximum_length, 20) AS SIGNED) AS longest \
                 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?",
            )
            .bind(table)
            .fetch_all(pool)
            .await?;
            let mut all = Vec::with_capacity(rows.len());
            for row in rows {
                let kind: String = row.try_get("kind")?;
                all.push(Column {
                    name: row.try_get("name")?,
                    is_nullable: row.try_get::<String, _>("nullable")? == "YES",
                    is_number: kind.contains("int"),
                    is_key: row.try_get::<String, _>("part")? == "PRI",
                    default: row.try_get("preset")?,
                    longest: row.try_get("longest")?,
                });
            }
            columns.insert(table, all);
        }
        Ok(Self { pool: pool.clone(), columns, kept: BTreeMap::new(), wishes })
    }

    /// Remembers the rows of these servers.
    pub(super) async fn keep(&mut self, servers: &[(String, Server)]) -> Result<()> {
        for (uid, server) in servers {
            self.wishes.keep(uid, server.clone());
            let mut rows = Vec::new();
            for table in TABLES {
                for values in self.rows(table, uid).await? {
                    rows.push((table, values));
                }
            }
            self.kept.insert(uid.clone(), rows);
        }
        Ok(())
    }

    async fn rows(&self, table: &'static str, uid: &str) -> Result<Vec<Values>> {
        let columns = &self.columns[table];
        let selected: Vec<String> = columns
            .iter()
            .map(|column| format!("CONVERT(`{0}` USING utf8mb4) AS `{0}`", column.name))
            .collect();
        let text = format!("SELECT {} FROM {table} WHERE server_uid = ?", selected.join(", "));
        let rows = sqlx::query(AssertSqlSafe(text)).bind(uid).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                columns
                    .iter()
                    .map(|column| {
                        Ok::<_, anyhow::Error>((
                            column.name.clone(),
                            row.try_get::<Option<String>, _>(column.name.as_str())?,
                        ))
                    })
                    .collect()
            })
            .collect()
    }

    /// One change of one row of this server.
    pub(super) fn change(&self, uid: &str, random: &mut StdRng) -> Result<Change> {
        let rows = self.kept.get(uid).context("rows of no server")?;
        let (table, of) = rows.choose(random).context("no rows")?;
        let table = *table;
        match random.random_range(0..15) {
            0 => return Ok(Change::Delete { table, uid: uid.to_owned(), of: of.clone() }),
            1 | 2 => return Ok(self.job(uid, random)),
            3..6 => {
                let (column, value) = forged::random(random).context("nothing well-formed")?;
                return self.forged(uid, column, Some(value));
            }
            _ => {}
        }
        let column = self.columns[table].choose(random).context("no columns")?;
        let value = self.value(table, column, random);
        let (uid, column) = (uid.to_owned(), column.name.clone());
        Ok(Change::Set { table, uid, of: of.clone(), column, value })
    }

    /// Null, the column's default, another row's value, or anything.
    fn value(&self, table: &str, column: &Column, random: &mut StdRng) -> Option<String> {
        let others: Vec<&Option<String>> = self
            .kept
            .values()
            .flatten()
            .filter(|(of, _)| *of == table)
            .filter_map(|(_, values)| values.get(&column.name))
            .collect();
        match random.random_range(0..4) {
            0 if column.is_nullable => None,
            0 | 1 => {
                let empty = if column.is_number { "0" } else { "" };
                let default = column.default.clone().filter(|text| text != "NULL");
                Some(default.unwrap_or_else(|| empty.to_owned()))
            }
            2 => others.choose(random).map(|value| (*value).clone()).unwrap_or_default(),
            _ if column.is_number => Some(random.random_range(0..1_000_i64).to_string()),
            _ => {
                let length = random.random_range(1..=column.longest.clamp(1, 40));
                let letter = |_| char::from(random.random_range(b'a'..=b'z'));
                Some((0..length).map(letter).collect())
            }
        }
    }

    /// One change of one row of a table that several servers share; returns what it was before.
    pub(super) async fn change_shared(&self, random: &mut StdRng) -> Result<Option<Shared>> {
        let table = SHARED.choose(random).copied().context("no tables")?;
        let columns = &self.columns[table];
        let selected: Vec<String> = columns
            .iter()
            .map(|column| format!("CONVERT(`{0}` USING utf8mb4) AS `{0}`", column.name))
            .collect();
        let text = format!("SELECT {} FROM {table}", selected.join(", "));
        let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(&self.pool).await?;
        let Some(row) = rows.choose(random) else { return Ok(None) };
        let mut of = Values::new();
        for column in columns {
            of.insert(column.name.clone(), row.try_get(column.name.as_str())?);
        }
        let column = columns.choose(random).context("no columns")?;
        let value = self.value(table, column, random);
        self.set_shared(table, column, &of, value.as_ref()).await;
        let column = column.name.clone();
        Ok(Some(Shared { table, column, before: of, value }))
    }

    /// Takes it back, unless what owns the row did.
    pub(super) async fn restore_shared(&self, shared: &Shared) -> Result<()> {
        let Shared { table, column, before, value } = shared;
        let mut now = before.clone();
        now.insert(column.clone(), value.clone());
        let column = self.columns[table].iter().find(|one| one.name == *column).context("no column")?;
        // A heartbeat that goes back is one more change.
        if *table != "worker" || column.is_key {
            self.set_shared(table, column, &now, before[&column.name].as_ref()).await;
        }
        Ok(())
    }

    async fn set_shared(&self, table: &str, column: &Column, of: &Values, value: Option<&String>) {
        let keys = self.columns[table].iter().filter(|column| column.is_key).map(|column| &column.name);
        let keys: Vec<&String> = keys.collect();
        let parts: Vec<String> =
            keys.iter().map(|key| format!("CONVERT(`{key}` USING utf8mb4) = ?")).collect();
        let text = format!("UPDATE {table} SET `{}` = ? WHERE {}", column.name, parts.join(" AND "));
        let mut query = sqlx::query(AssertSqlSafe(text)).bind(value);
        for key in keys {
            query = query.bind(of[key].as_deref());
        }
        // What the database itself refuses is no change.
        let _ = query.execute(&self.pool).await;
    }

    /// A forged job: with the intent of one that ended, or with the one that the object's wish has.
    fn job(&self, uid: &str, random: &mut StdRng) -> Change {
        let steps = [
            ("Reimage", "SetBootOverride"),
            ("Wipe", "SetBootOverride"),
            ("Decommission", "SetBootOverride"),
            ("PowerOff", "PowerOff"),
            ("PowerOn", "PowerOn"),
            ("Reboot", "PowerOff"),
            ("Reimage", "PowerOn"),
            ("Levitate", "Up"),
        ];
        let (action, step) = steps.choose(random).copied().unwrap_or(steps[0]);
        if let Some(action) = Action::parse(action).filter(|_| random.random_ratio(1, 2)) {
            return self.wished_job(uid, action);
        }
        let intents: Vec<String> = self
            .kept
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|(_, values)| values.get("last_job")?.as_deref())
            .filter_map(|text| {
                serde_json::from_str::<serde_json::Value>(text).ok()?["intent"].as_str().map(str::to_owned)
            })
            .collect();
        let intent = intents.choose(random).cloned().unwrap_or_else(|| "f".repeat(64));
        Change::Job { uid: uid.to_owned(), intent, job: ForgedJob::new(action, step) }
    }

    /// A forged job as the controller would have enqueued it, had the object asked for it: an intent is no secret.
    fn wished_job(&self, uid: &str, action: Action) -> Change {
        let intent = self.wishes.intent(uid, action).unwrap_or_else(|| "f".repeat(64));
        let job = ForgedJob::new(action.as_str(), action.steps()[0].as_str());
        Change::Job { uid: uid.to_owned(), intent, job }
    }

    /// The same, as if it had begun.
    pub(super) fn begun_jobs(&self, uid: &str) -> Vec<Change> {
        let bmc = self.wishes.bmc(uid);
        let changes = forged::begun_jobs().into_iter().map(|(action, mut job)| {
            // To where it is, in their words.
            if let Some((checkpoint, _)) = &mut job.begun {
                checkpoint["bmc"] = bmc.clone();
            }
            let intent = self.wishes.intent(uid, action).unwrap_or_else(|| "f".repeat(64));
            Change::Job { uid: uid.to_owned(), intent, job }
        });
        changes.collect()
    }

    /// Which of these servers has a live job that is no look.
    pub(super) async fn at_work(&self, uids: &[String]) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for uid in uids {
            let text = "SELECT CONCAT(action, ' ', step, ' ', COALESCE(cancel, '')) FROM job WHERE server_uid = ? AND action <> 'Inspect'";
            all.extend(sqlx::query_scalar(text).bind(uid).fetch_optional(&self.pool).await?);
        }
        Ok(all)
    }

    /// A well-formed value in a column of a server's row.
    pub(super) fn forged(&self, uid: &str, column: &str, value: Option<String>) -> Result<Change> {
        let state = self.kept.get(uid).and_then(|rows| rows.iter().find(|(of, _)| *of == "server_state"));
        let (table, of) = state.context("a server without a row")?;
        let (uid, column) = (uid.to_owned(), column.to_owned());
        Ok(Change::Set { table, uid, of: of.clone(), column, value })
    }

    /// The job of this server that ended last.
    fn last_job(&self, uid: &str) -> serde_json::Value {
        let state = self.kept.get(uid).and_then(|rows| rows.iter().find(|(of, _)| *of == "server_state"));
        let text = state.and_then(|(_, values)| values.get("last_job")?.as_deref()).unwrap_or("null");
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Everything that changes the power of a machine if it is believed.
    pub(super) fn careful(&self, uid: &str) -> Result<Vec<Change>> {
        let mut all = Vec::new();
        for action in [Action::PowerOff, Action::PowerOn, Action::Reboot] {
            all.push(self.wished_job(uid, action));
        }
        for debt in forged::debts_of(&self.last_job(uid)) {
            all.push(self.forged(uid, "debt", Some(debt))?);
        }
        Ok(all)
    }

    pub(super) async fn apply(&self, change: &Change) -> Result<()> {
        // What the database itself refuses is no change.
        let _ = match change {
            Change::Set { table, uid, of, column, value } => {
                let (condition, keys) = key(table, uid, of);
                let text = format!("UPDATE {table} SET `{column}` = ? WHERE {condition}");
                let mut query = sqlx::query(AssertSqlSafe(text)).bind(value);
                for key in keys {
                    query = query.bind(key);
                }
                query.execute(&self.pool).await
            }
            Change::Delete { table, uid, of } => {
                let (condition, keys) = key(table, uid, of);
                let text = format!("DELETE FROM {table} WHERE {condition}");
                let mut query = sqlx::query(AssertSqlSafe(text));
                for key in keys {
                    query = query.bind(key);
                }
                query.execute(&self.pool).await
            }
            Change::Job { uid, intent, job } => {
                // A look that is under way has to end first.
                while job.begun.is_some() && !self.forge(uid, intent, job).await? {}
                if job.begun.is_none() {
                    self.forge(uid, intent, job).await?;
                }
                return Ok(());
            }
        };
        Ok(())
    }

    /// Whether there was room for it: a server has one live job.
    async fn forge(&self, uid: &str, intent: &str, job: &ForgedJob) -> Result<bool> {
        let state = self.kept[uid].iter().find(|(table, _)| *table == "server_state");
        let Some((_, state)) = state else { return Ok(true) };
        let (checkpoint, cancel) = job.begun.clone().unwrap_or_default();
        let checkpoint = if job.begun.is_some() { checkpoint.to_string() } else { String::new() };
        let name = job.name.map(str::to_owned).or_else(|| state["name"].clone());
        let mut transaction = self.pool.begin().await?;
        // Its age and the time of its enqueue are those of this moment, as a forger would have them.
        let inserted = sqlx::query(
            "INSERT INTO job (server_uid, id, namespace, name, site, shard, action, lane, order_ms, q_state, q_ord, intent, cause, \
             quiet, step, checkpoint, request_stored, attempt, started_at_ms, cancel, requester, enqueued_at_ms) VALUES (?, ?, ?, ?, \
             'default', 0, ?, 0, 1, 0, 1, ?, ?, 0, ?, ?, ?, ?, IF(?, CAST(UNIX_TIMESTAMP() * 1000 AS SIGNED), NULL), ?, 'nobody', \
             CAST(UNIX_TIMESTAMP() * 1000 AS SIGNED))",
        )
        .bind(uid)
        .bind(rand::random::<u32>())
        .bind(&state["namespace"])
        .bind(name)
        .bind(job.action)
        .bind(intent)
        .bind("c".repeat(64))
        .bind(job.step)
        .bind(checkpoint)
        .bind(job.begun.is_some())
        .bind(i32::from(job.begun.is_some()))
        .bind(job.begun.is_some())
        .bind(cancel)
        .execute(&mut *transaction)
        .await;
        if inserted.is_err() {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO queue (site, shard, state, ord, id, server_uid) SELECT site, shard, q_state, q_ord, id, server_uid FROM job \
             WHERE server_uid = ?",
        )
        .bind(uid)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Waits until each machine was looked at twice since now, or its job is one that nobody here works on, or nothing of it is
    /// looked at any more.
    pub(super) async fn wait_for_looks(&self, uids: &[String]) -> Result<()> {
        let begun = std::time::Instant::now();
        let text = "SELECT COALESCE(MAX(last_try_ms), 0) FROM server_state WHERE server_uid = ?";
        let looks: Mutex<BTreeMap<&String, (i64, u32)>> = Mutex::default();
        wait_for("two looks at each machine", LIMIT, async || {
            let mut waiting = 0;
            for uid in uids {
                let now: i64 = sqlx::query_scalar(text).bind(uid).fetch_one(&self.pool).await?;
                let mut looks = looks.lock().unwrap();
                let (last, count) = looks.entry(uid).or_insert((now, 0));
                if *last != now {
                    (*last, *count) = (now, *count + 1);
                }
                waiting += u32::from(*count < 2);
            }
            // What stands still for a reason is not looked at; so is what has no row.
            let patient = begun.elapsed() < std::time::Duration::from_secs(6);
            Ok(if waiting > 0 && patient {
                Look::NotYet(format!("{waiting} not yet"))
            } else {
                Look::Holds(())
            })
        })
        .await
    }

    /// Puts the rows of these servers back as they were.
    pub(super) async fn restore(&self, uids: &[String]) -> Result<()> {
        for uid in uids {
            wait_for("the rows are back", LIMIT, async || {
                Ok(match self.restore_one(uid).await {
                    Ok(()) => Look::Holds(()),
                    Err(error) => Look::NotYet(format!("{error:#}")),
                })
            })
            .await?;
        }
        Ok(())
    }

    async fn restore_one(&self, uid: &str) -> Result<()> {
        let kept = &self.kept[uid];
        let mut transaction = self.pool.begin().await?;
        for text in [
            "DELETE queue FROM queue JOIN job ON job.server_uid = queue.server_uid WHERE job.server_uid = ?",
            "DELETE FROM queue WHERE server_uid = ?",
            "DELETE FROM job WHERE server_uid = ?",
            "DELETE FROM boot_session WHERE server_uid = ?",
        ] {
            sqlx::query(text).bind(uid).execute(&mut *transaction).await?;
        }
        for table in TABLES {
            let text = format!("DELETE FROM {table} WHERE server_uid = ?");
            sqlx::query(AssertSqlSafe(text)).bind(uid).execute(&mut *transaction).await?;
        }
        for (table, values) in kept {
            let names: Vec<String> = values.keys().map(|name| format!("`{name}`")).collect();
            let marks = vec!["?"; names.len()].join(", ");
            let text = format!("REPLACE INTO {table} ({}) VALUES ({marks})", names.join(", "));
            let mut query = sqlx::query(AssertSqlSafe(text));
            for value in values.values() {
                query = query.bind(value);
            }
            query.execute(&mut *transaction).await?;
        }
        // Newer than whatever was decided on meanwhile, and to be shown.
        sqlx::query(
            "UPDATE server_state SET version = version + 1000000, changed_at_ms = 1 WHERE server_uid = ?",
        )
        .bind(uid)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Which row: by the server and by what else its key has.
fn key<'a>(table: &str, uid: &'a str, of: &'a Values) -> (&'static str, Vec<&'a str>) {
    let value = |name: &str| of.get(name).and_then(Option::as_deref).unwrap_or_default();
    match table {
        "bmc_claim" => {
            ("server_uid = ? AND host = ? AND bmc_system = ?", vec![uid, value("host"), value("bmc_system")])
        }
        "machine" => ("server_uid = ? AND identity = ?", vec![uid, value("identity")]),
        "handled_token" => {
            ("server_uid = ? AND kind = ? AND hash = ?", vec![uid, value("kind"), value("hash")])
        }
        "job_history" => ("server_uid = ? AND job_id = ?", vec![uid, value("job_id")]),
        _ => ("server_uid = ?", vec![uid]),
    }
}
