//! The queue on real databases: every property once on MySQL and once on MariaDB.
//!
//! `DB=mysql` or `DB=mariadb` runs one of them only.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::default_trait_access,
    reason = "tests"
)]

mod answers;
mod batches;
mod bmcs;
mod boot;
mod cards;
mod claims;
mod controller_side;
mod debts;
mod decided;
mod derivation;
mod destruction;
mod farewell;
mod faults;
mod fixture;
mod histories;
mod leases;
mod order;
mod permits;
mod plans;
mod quiet;
mod tokens;

use std::sync::Arc;

use e2e::database::{Database, Engine};
use fixture::Fixture;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};

/// One property: a sentence and the test.
type Case = (&'static str, fn(Fixture) -> LocalBoxFuture<'static, ()>);

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let wanted = std::env::var("DB").ok();
    let engines: Vec<Engine> = [Engine::MySql, Engine::MariaDb]
        .into_iter()
        .filter(|engine| wanted.as_deref().is_none_or(|wanted| wanted == engine.as_str()))
        .collect();
    assert!(!engines.is_empty(), "DB is {wanted:?}; it may be mysql, mariadb or absent");
    let mut databases = Vec::new();
    let mut trials = Vec::new();
    for engine in engines {
        let database = if arguments.list {
            None
        } else {
            eprintln!("starting {} ...", engine.as_str());
            Some(Arc::new(runtime.block_on(Database::start(engine)).unwrap()))
        };
        for (name, case) in claims::CASES
            .iter()
            .chain(controller_side::CASES)
            .chain(decided::CASES)
            .chain(quiet::CASES)
            .chain(debts::CASES)
            .chain(farewell::CASES)
            .chain(leases::CASES)
            .chain(histories::CASES)
            .chain(derivation::CASES)
            .chain(bmcs::CASES)
            .chain(boot::CASES)
            .chain(cards::CASES)
            .chain(destruction::CASES)
            .chain(tokens::CASES)
            .chain(batches::CASES)
            .chain(order::CASES)
            .chain(permits::CASES)
            .chain(answers::CASES)
        {
            let (handle, database) = (runtime.handle().clone(), database.clone());
            trials.push(Trial::test(format!("{}: {name}", engine.as_str()), move || {
                let database = database.ok_or("only listed")?;
                handle.block_on(async { case(Fixture::new(&database).await).await });
                Ok(())
            }));
        }
        let handle = runtime.handle().clone();
        trials.push(Trial::test(
            format!("{}: killing the database in the middle loses and doubles no job", engine.as_str()),
            move || {
                handle.block_on(faults::a_killed_database_loses_and_doubles_nothing(engine));
                Ok(())
            },
        ));
        let handle = runtime.handle().clone();
        trials.push(Trial::test(
            format!("{}: a server that is full of prepared statements loses no job", engine.as_str()),
            move || {
                handle.block_on(faults::too_many_prepared_statements(engine));
                Ok(())
            },
        ));
        let handle = runtime.handle().clone();
        trials.push(Trial::test(
            format!(
                "{}: no statement scans a table or sorts in a file, with one row or with many",
                engine.as_str()
            ),
            move || {
                handle.block_on(plans::no_statement_scans_or_sorts(engine));
                Ok(())
            },
        ));
        databases.extend(database);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(databases);
    conclusion.exit_code()
}
