//! The users of an installation, with the rights that the installation's page gives them: what a process needs beside those is
//! seen here first.

use anyhow::{Context, Result, bail};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};

use super::Database;
use crate::paths;

/// Where each process logs in to one schema. The URLs have passwords in them.
#[derive(Debug, Clone)]
pub struct Users {
    controller: String,
    worker: String,
    boot: String,
}

/// The processes that have a user of their own.
const ROLES: [&str; 3] = ["controller", "worker", "boot"];

impl Users {
    /// For a subcommand; `None`: it has no user of its own.
    pub fn of(&self, subcommand: &str) -> Option<&str> {
        match subcommand {
            "controller" => Some(&self.controller),
            "worker" => Some(&self.worker),
            "boot" => Some(&self.boot),
            _ => None,
        }
    }
}

/// The rights of the page, one statement each.
fn grants() -> Result<Vec<String>> {
    let page = std::fs::read_to_string(paths::root().join("docs/src/install.md"))?;
    let code = page.lines().filter_map(|line| line.strip_prefix("    "));
    let text: String = code.flat_map(|line| [line.trim(), " "]).collect();
    let all: Vec<String> =
        text.split(';').map(str::trim).filter(|one| one.starts_with("GRANT ")).map(str::to_owned).collect();
    if all.is_empty() {
        bail!("docs/src/install.md grants nothing");
    }
    Ok(all)
}

impl Database {
    /// Makes the users of a schema that is migrated.
    pub async fn users(&self, schema_url: &str) -> Result<Users> {
        let url = url::Url::parse(schema_url)?;
        let schema = url.path().trim_start_matches('/').to_owned();
        let grants = grants()?;
        let mut connection = MySqlConnection::connect_with(&self.options).await?;
        let mut urls = Vec::with_capacity(ROLES.len());
        for role in ROLES {
            let password = uuid::Uuid::new_v4().simple().to_string();
            let user = format!("{role}_{}", schema.split('_').next_back().unwrap_or(&schema));
            let quoted = format!("'{user}'@'%'");
            let create = format!("CREATE USER {quoted} IDENTIFIED BY '{password}'");
            connection.execute(AssertSqlSafe(create)).await?;
            let named = format!("TO autobuild_{role}");
            for grant in grants.iter().filter(|grant| grant.ends_with(&named)) {
                let grant = grant
                    .replace("autobuild.", &format!("`{schema}`."))
                    .replace(&named, &format!("TO {quoted}"));
                connection
                    .execute(AssertSqlSafe(grant.clone()))
                    .await
                    .with_context(|| format!("docs/src/install.md: {grant}"))?;
            }
            let mut url = url.clone();
            url.set_username(&user).ok().context("the URL takes no user")?;
            url.set_password(Some(&password)).ok().context("the URL takes no password")?;
            urls.push(url.to_string());
        }
        let [controller, worker, boot] =
            <[String; 3]>::try_from(urls).map_err(|_| anyhow::anyhow!("three users"))?;
        Ok(Users { controller, worker, boot })
    }
}
