//! What the API server refuses of an OSImage, and that nobody changes one.

use e2e::control_plane::ControlPlane;

use crate::says;

const DIGITS: &str = "abababababababababababababababababababababababababababababababab";

fn manifest(namespace: &str, source: &str, install: &str) -> String {
    format!(
        "apiVersion: autobuild.dev/v1alpha1\nkind: OSImage\nmetadata:\n  name: debian\n  namespace: {namespace}\n\
         spec:\n  source: {source}\n  install: {install}\n"
    )
}

fn file(url: &str) -> String {
    format!("{{url: \"{url}\", sha256: {DIGITS}}}")
}

fn source(args: &str) -> String {
    let good = file("https://images.example.com/a");
    format!("{{kernel: {good}, initrd: {good}, args: {args}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_says_what_an_image_lacks_and_that_another_one_is_needed() {
    let plane = ControlPlane::shared().await.unwrap();
    plane.apply_crds().await.unwrap();
    let namespace = plane.namespace("images").await.unwrap();
    let kubectl = plane.kubectl();
    let install = format!(
        "{{format: preseed, dataRef: {{kind: ConfigMap, name: debian, key: preseed.cfg}}, sha256: {DIGITS}}}"
    );
    let good = file("https://images.example.com/a");
    let table: &[(String, String, &[&str])] = &[
        (
            format!("{{kernel: {good}}}"),
            "{format: none}".into(),
            &["spec.source", "either kernel and initrd"],
        ),
        (
            format!("{{kernel: {good}, initrd: {good}, iso: {good}}}"),
            "{format: none}".into(),
            &["spec.source", "either kernel and initrd"],
        ),
        (
            format!("{{iso: {}}}", file("https://user:canary@images.example.com/a")),
            "{format: none}".into(),
            &["spec.source.iso", "user information"],
        ),
        (
            format!("{{iso: {}}}", file("ftp://images.example.com/a")),
            "{format: none}".into(),
            &["spec.source.iso", "url is written https://HOST"],
        ),
        ("{iso: {url: \"https://a/b\"}}".into(), "{format: none}".into(), &["spec.source.iso.sha256"]),
        (source("[\"a b\"]"), install.clone(), &["spec.source.args"]),
        (source("[\"a=${net0/mac}\"]"), install.clone(), &["spec.source.args"]),
        (source("[\"a\\nboot\"]"), install.clone(), &["spec.source.args"]),
        (source("[\"autobuild.url=http://a\"]"), install.clone(), &["spec.source.args", "remove it"]),
        (
            source(&format!("[{}]", vec![format!("a.b={}", "x".repeat(252)); 4].join(", "))),
            install.clone(),
            &["spec.source.args", "more than 1024 characters", "take some away"],
        ),
        (
            source(&format!("[{}]", (0..25).map(|n| format!("n/{n}=x")).collect::<Vec<_>>().join(", "))),
            install.clone(),
            &["spec.source.args", "more than 24 items", "take some away"],
        ),
        (
            source(&format!("[{}]", (0..25).map(|n| format!("word{n}")).collect::<Vec<_>>().join(", "))),
            install.clone(),
            &["spec.source.args", "more than 24 items that are one word"],
        ),
        (source("[]"), "{format: preseed}".into(), &["spec.install", "dataRef and sha256"]),
        (source("[]"), "{format: windows}".into(), &["spec.install.format", "kickstart", "none"]),
    ];
    for (source, install, parts) in table {
        let text = manifest(&namespace, source, install);
        let output = kubectl.output_with_input(&["apply", "-f", "-"], &text).await.unwrap();
        assert!(!output.success, "{text}");
        says(&output.stderr, parts).expect(&text);
        assert!(!output.stderr.contains("canary"), "{}", output.stderr);
    }
    let image = manifest(
        &namespace,
        &source("[quiet, \"console=ttyS0,115200\", \"netcfg/get_domain=example.com\"]"),
        &install,
    );
    kubectl.run_with_input(&["apply", "-f", "-"], &image).await.unwrap();
    let changed = manifest(&namespace, &source("[debug]"), &install);
    let output = kubectl.output_with_input(&["apply", "-f", "-"], &changed).await.unwrap();
    assert!(!output.success);
    says(&output.stderr, &["spec", "create another one under a new name"]).unwrap();
    let listed = kubectl.output(&["get", "osi", "-n", &namespace]).await.unwrap();
    says(&listed.stdout, &["FORMAT", "preseed", "https://images.example.com/a"]).unwrap();
    plane.delete_namespace(&namespace).await.unwrap();
}
