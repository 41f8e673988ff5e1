//! Kubeconfigs for roles other than the administrator's.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{AuthInfo, Kubeconfig, NamedAuthInfo};
use kube::{Api, Client};

/// A day: longer than any test, and a development cluster lives no longer.
const SECONDS: i64 = 24 * 3600;

/// Asks for a token and writes a kubeconfig for the same cluster with it.
pub(super) async fn write_for_service_account(
    admin: &Client,
    like: &Path,
    namespace: &str,
    account: &str,
    path: &Path,
) -> Result<()> {
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(SECONDS), ..Default::default() },
        ..Default::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = answer.status.context("the API server issued no token")?.token;

    let mut config = Kubeconfig::read_from(like)?;
    let current =
        config.current_context.clone().context("the administrator's kubeconfig has no current context")?;
    config.contexts.retain(|context| context.name == current);
    for context in &mut config.contexts {
        if let Some(context) = &mut context.context {
            context.user = Some(account.to_owned());
            context.namespace = None;
        }
    }
    config.auth_infos = vec![NamedAuthInfo {
        name: account.to_owned(),
        auth_info: Some(AuthInfo { token: Some(token.into()), ..Default::default() }),
        ..Default::default()
    }];
    write_private(path, &serde_yaml::to_string(&config)?)
}

/// Writes a file that only this user reads, in one step.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let unfinished = path.with_extension("new");
    let _ = std::fs::remove_file(&unfinished);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(content.as_bytes())?;
    std::fs::rename(&unfinished, path)?;
    Ok(())
}
