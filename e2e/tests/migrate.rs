//! `autobuild migrate` as a person runs it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::{Command, Output};

use e2e::database::{Database, Engine, Special};
use sqlx::Connection as _;

fn migrate(url: &str, more: &[&str]) -> Output {
    let binary = e2e::paths::target().join("debug/autobuild");
    let mut command = Command::new(&binary);
    command.arg("migrate").args(more).env("DATABASE_URL", url);
    command
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo build --workspace`", binary.display()))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn migrating_twice_changes_nothing_and_a_new_epoch_is_another_one() {
    let database = Database::start(Engine::MariaDb).await.unwrap();
    let url = database.create_schema("migrated").await.unwrap();
    let epoch = |output: Output| {
        assert!(output.status.success(), "{}", said(&output));
        said(&output).split("epoch").nth(1).unwrap().to_owned()
    };
    let first = epoch(migrate(&url, &[]));
    assert_eq!(first, epoch(migrate(&url, &[])));
    assert_ne!(first, epoch(migrate(&url, &["--new-epoch"])));
}

#[tokio::test]
async fn the_release_before_may_migrate_again_until_what_it_needs_is_taken_away() {
    let database = Database::start(Engine::MariaDb).await.unwrap();
    let url = database.create_schema("expanded").await.unwrap();
    assert!(migrate(&url, &[]).status.success());
    let mut connection = sqlx::MySqlConnection::connect(&url).await.unwrap();
    let mut of_tomorrow = async |table: &str| {
        let text = format!(
            "INSERT INTO {table} (version, description, success, checksum, execution_time) \
             VALUES (9999, 'of tomorrow', TRUE, '', 0)"
        );
        sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    };
    of_tomorrow("schema_expansion").await;
    let output = migrate(&url, &[]);
    assert!(output.status.success(), "{}", said(&output));
    of_tomorrow("_sqlx_migrations").await;
    let output = migrate(&url, &[]);
    assert!(!output.status.success());
    let text = said(&output);
    assert!(text.contains("version 9999") && text.contains("use a newer release"), "{text}");
}

#[rstest::rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test(flavor = "multi_thread")]
async fn several_who_migrate_at_once_all_succeed(#[case] engine: Engine) {
    let database = Database::shared(engine).await.unwrap();
    let url = database.unique_schema("at_once").await.unwrap();
    let migrating = (0..4).map(|_| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || migrate(&url, &[]))
    });
    for output in futures::future::join_all(migrating).await {
        let output = output.unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[tokio::test]
async fn a_migration_that_stopped_half_way_is_named_and_goes_on_after_the_repair_of_the_page() {
    let database = Database::shared(Engine::MariaDb).await.unwrap();
    let url = database.unique_schema("half_way").await.unwrap();
    assert!(migrate(&url, &[]).status.success());
    let mut connection = sqlx::MySqlConnection::connect(&url).await.unwrap();
    let mut run =
        async |text: &'static str| sqlx::query(text).execute(&mut connection).await.map(drop).unwrap();
    run("UPDATE schema_expansion SET success = FALSE WHERE version = 21").await;
    let text = said(&migrate(&url, &[]));
    assert!(text.contains("migration 21") && text.contains("A migration that stopped half way"), "{text}");
    // All of its statements are there.
    run("UPDATE schema_expansion SET success = TRUE WHERE version = 21").await;
    assert!(migrate(&url, &[]).status.success());
    // None of them is.
    run("ALTER TABLE boot_session DROP COLUMN given_in").await;
    run("UPDATE schema_expansion SET success = FALSE WHERE version = 21").await;
    assert!(!migrate(&url, &[]).status.success());
    run("DELETE FROM schema_expansion WHERE version = 21").await;
    let output = migrate(&url, &[]);
    assert!(output.status.success(), "{}", said(&output));
    run("SELECT given_in FROM boot_session").await;
}

#[test]
fn a_bad_address_is_refused_with_the_flag_and_the_way_out_and_without_the_password() {
    for url in [
        "postgres://user:hunter2@localhost/db",
        "mysql://user:hunter2@localhost",
        "mysql://user:hunter2@localhost:x/db",
    ] {
        let output = migrate(url, &[]);
        assert!(!output.status.success());
        let text = said(&output);
        assert!(text.contains("--database-url") && text.contains("mysql://USER"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn an_unreachable_database_is_named_as_such() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = migrate(&format!("mysql://root:hunter2@127.0.0.1:{free}/autobuild"), &[]);
    assert!(!output.status.success());
    let text = said(&output);
    assert!(text.contains("the database does not answer") && !text.contains("hunter2"), "{text}");
}

/// Two files below `dir`: a CA that nobody else has, and a certificate of it for 127.0.0.1 with its key.
fn certificates(dir: &std::path::Path, name: &str) -> [String; 3] {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, name);
    let ca_file = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = own.signed_by(&key, &issuer).unwrap().pem();
    [("ca", ca_file), ("certificate", certificate), ("key", key.serialize_pem())].map(|(file, text)| {
        let path = dir.join(format!("{name}-{file}.pem"));
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    })
}

#[rstest::rstest]
#[case::mysql(Engine::MySql)]
#[case::mariadb(Engine::MariaDb)]
#[tokio::test]
async fn a_database_is_verified_by_the_ca_and_the_name_that_its_url_asks_for(#[case] engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    let [ca, certificate, key] = certificates(dir.path(), "ours");
    let [other, ..] = certificates(dir.path(), "theirs");
    let args = [format!("--ssl-ca={ca}"), format!("--ssl-cert={certificate}"), format!("--ssl-key={key}")];
    let special = Special { args: args.to_vec(), env: Vec::new() };
    let database = Database::special("verified", engine, special).await.unwrap();
    let url = database.create_schema("verified").await.unwrap();
    let asking =
        |mode: &str, ca: &str| url.replace("ssl-mode=disabled", &format!("ssl-mode={mode}&ssl-ca={ca}"));
    for mode in ["VERIFY_CA", "VERIFY_IDENTITY"] {
        let output = migrate(&asking(mode, &ca), &[]);
        assert!(output.status.success(), "{mode}: {}", said(&output));
        let output = migrate(&asking(mode, &other), &[]);
        let text = said(&output);
        assert!(!output.status.success() && text.contains("certificate"), "{mode}: {text}");
    }
    // Not the name in the certificate.
    let elsewhere = |mode: &str| migrate(&asking(mode, &ca).replace("@127.0.0.1:", "@localhost:"), &[]);
    let output = elsewhere("VERIFY_CA");
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&elsewhere("VERIFY_IDENTITY"));
    assert!(text.contains("certificate") && text.contains("localhost"), "{text}");
}
