//! Install data: a template of whoever may write an `OSImage`, filled with the values of one server. Pure.
//!
//! Templates load nothing, use only values that are there, and may take neither much time nor much room. Every value
//! is quoted as the format asks; there is no way to have one unquoted.

use std::io;

use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::call_home::{Text, call_home};
use super::escape::{MARKS, Quoting, shell, unmarked};
use super::machine::Machine;
use crate::api::InstallFormat;

/// Longest template, and longest result.
pub const LONGEST: usize = 1024 * 1024;
/// Steps that a template may take.
const FUEL: u64 = 200_000;

/// Data that cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// Longer than allowed.
    #[error("the install data is longer than {LONGEST} bytes: fetch what is large from elsewhere")]
    TooLong,
    /// Not text.
    #[error("the install data is not UTF-8")]
    NotText,
    /// A shell would run what a value says.
    #[error(
        "{0} of the install data is run by a shell, and a value in it has characters that mean something to one: write \
         {{{{ NAME | shell }}}} there"
    )]
    Unquoted(String),
    /// The template is wrong, or does not end.
    #[error("line {line} of the install data: {why}")]
    Template {
        /// The line, from 1; 0: unknown.
        line: usize,
        /// Why.
        why: String,
    },
}

/// What a template may use besides the values of the server.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// The card that boots.
    pub mac: &'a str,
    /// Name of the image.
    pub image: &'a str,
    /// Its digest.
    pub digest: &'a str,
    /// Where everything of the session is.
    pub url: &'a str,
}

/// Everything that a template can name. A hint that is not given is empty, so that a template can ask
/// `{% if root_device.serial %}`.
fn values(machine: &Machine, around: Around<'_>) -> Value {
    let root = &machine.root_device;
    let hint = |text: &Option<String>| Value::from(text.as_deref().unwrap_or_default());
    let root_device = [
        ("serial", hint(&root.serial_number)),
        ("wwn", hint(&root.wwn)),
        ("model", hint(&root.model)),
        (
            "smallest_gib",
            Value::from(root.min_size_gib.and_then(|gib| u64::try_from(gib).ok()).unwrap_or_default()),
        ),
    ];
    let vars = machine.vars.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Value::from_pairs([
        ("name", Value::from(machine.name.as_str())),
        ("namespace", Value::from(machine.namespace.as_str())),
        ("uid", Value::from(machine.uid.as_str())),
        ("mac", Value::from(around.mac)),
        ("image", Value::from(around.image)),
        ("digest", Value::from(around.digest)),
        ("url", Value::from(around.url)),
        ("root_device", Value::from_pairs(root_device)),
        ("vars", Value::from_pairs(vars)),
    ])
}

/// The data of one server.
pub fn render(
    template: &[u8],
    format: InstallFormat,
    machine: &Machine,
    around: Around<'_>,
) -> Result<String, RenderError> {
    if template.len() > LONGEST {
        return Err(RenderError::TooLong);
    }
    let source = std::str::from_utf8(template).map_err(|_| RenderError::NotText)?;
    // One line break at the end is taken away, and some installers read whole lines.
    let source = if source.ends_with('\n') { format!("{source}\n") } else { source.to_owned() };
    let quoting = Quoting::of(format);
    if quoting == Quoting::Line && source.contains(MARKS) {
        return Err(RenderError::NotText);
    }
    let environment = environment(format, around.url);
    let template = environment.template_from_str(&source).map_err(|error| told(&error))?;
    let mut bounded = Bounded(Vec::new());
    match template.render_captured_to(values(machine, around), &mut bounded) {
        Ok(_) => {
            let text = String::from_utf8(bounded.0).map_err(|_| RenderError::NotText)?;
            if quoting == Quoting::Line { unmarked(&text).map_err(RenderError::Unquoted) } else { Ok(text) }
        }
        Err(error) if error.kind() == ErrorKind::WriteFailure => Err(RenderError::TooLong),
        Err(error) => Err(told(&error)),
    }
}

fn told(error: &Error) -> RenderError {
    let kind = error.kind();
    let why = error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}"));
    RenderError::Template { line: error.line().unwrap_or_default(), why }
}

fn environment(format: InstallFormat, url: &str) -> Environment<'static> {
    let quoting = Quoting::of(format);
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    // The results of macros are marked as quoted only where something is quoted at all.
    environment.set_auto_escape_callback(|_| AutoEscape::Custom("format".into()));
    environment.set_formatter(move |out, _, value| {
        let text = quoted(quoting, value)?;
        out.write_str(&text).map_err(Error::from)
    });
    for way_round in ["safe", "escape", "e", "urlencode"] {
        environment.remove_filter(way_round);
    }
    environment.add_filter("shell", move |value: &str| {
        let word = shell(value).ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, "a value has a line break or control character")
        })?;
        // In JSON and YAML it is a string as any other.
        Ok::<_, Error>(if quoting == Quoting::Json {
            Value::from(word)
        } else {
            Value::from_safe_string(word)
        })
    });
    let called = call_home(format, url);
    environment.add_function("call_home", move || match &called {
        Some(Text::Shell(commands)) => Ok(Value::from_safe_string(commands.clone())),
        Some(Text::Value(text)) => Ok(Value::from(text.clone())),
        None => Err(Error::new(ErrorKind::InvalidOperation, "call_home() has no address to call")),
    });
    environment
}

fn quoted(quoting: Quoting, value: &Value) -> Result<String, Error> {
    let refused = |why: &'static str| Err(Error::new(ErrorKind::InvalidOperation, why));
    if value.is_safe() {
        return Ok(value.to_string());
    }
    match value.kind() {
        ValueKind::String => match value.as_str().and_then(|text| quoting.quote(text)) {
            Some(text) => Ok(text),
            None => refused("a value has a line break or control character, which this format cannot carry"),
        },
        ValueKind::Number | ValueKind::Bool => Ok(value.to_string()),
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        _ => refused("only text and numbers can be written: name one of the values"),
    }
}

struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn machine(value: &str) -> Machine {
        Machine {
            name: "node-1".into(),
            namespace: "default".into(),
            uid: "u-1".into(),
            vars: [("host".to_owned(), value.to_owned())].into(),
            ..Machine::default()
        }
    }

    fn rendered(template: &str, format: InstallFormat, value: &str) -> Result<String, RenderError> {
        let around = Around {
            mac: "52-54-00-12-34-56",
            image: "debian-13",
            digest: "sha256:ab",
            url: "http://10.0.0.5:8080/s/ab",
        };
        render(template.as_bytes(), format, &machine(value), around)
    }

    #[test]
    fn values_are_filled_in_as_the_format_quotes_them() {
        assert_eq!(
            rendered(
                "network --hostname={{ vars.host }} {{ url }}/installed\n",
                InstallFormat::Kickstart,
                "it's"
            )
            .unwrap(),
            "network --hostname='it'\\''s' http://10.0.0.5:8080/s/ab/installed\n"
        );
        assert_eq!(
            rendered("hostname: {{ vars.host }}\nid: {{ uid }}\n", InstallFormat::CloudInit, "a: b").unwrap(),
            "hostname: \"a\\u003a b\"\nid: \"u-1\"\n"
        );
        assert_eq!(
            rendered(
                "{% if root_device.serial %}x{% else %}y{% endif %}{{ 1 + 1 }}",
                InstallFormat::Preseed,
                ""
            )
            .unwrap(),
            "y2"
        );
    }

    #[test]
    fn a_macros_result_is_not_quoted_again() {
        let template = "{% macro m(x) %}a={{ x }}{% endmacro %}{{ m(vars.host) }}";
        assert_eq!(rendered(template, InstallFormat::Kickstart, "b c").unwrap(), "a='b c'");
    }

    #[test]
    fn nothing_is_written_unquoted() {
        for template in [
            "{{ vars.host|safe }}",
            "{{ vars.host|escape }}",
            "{{ vars.host|e }}",
            "{% autoescape false %}{{ vars.host }}{% endautoescape %}",
            "{% autoescape 'html' %}{{ vars.host }}{% endautoescape %}",
            "{{ vars }}",
            "{{ [vars.host] }}",
            "{% set x %}{{ vars.host }}{% endset %}{{ x }}",
            "{{ [vars.host, vars.host]|join(' ') }}",
            "{% filter upper %}{{ vars.host }}{% endfilter %}",
            "{{ vars.host|replace('a', 'b') }}",
            "{{ vars.host ~ 'x' }}",
        ] {
            if let Ok(text) = rendered(template, InstallFormat::Kickstart, "x; reboot") {
                assert!(text.starts_with('\'') && text.ends_with('\''), "{template}: {text}");
            }
        }
    }

    #[test]
    fn a_line_break_has_no_place_in_formats_of_lines() {
        let error = rendered("a\nb {{ vars.host }}", InstallFormat::Preseed, "x\nd-i evil").unwrap_err();
        assert!(matches!(&error, RenderError::Template { line: 2, .. }), "{error}");
        assert!(!error.to_string().contains("evil"), "{error}");
    }

    #[test]
    fn a_value_of_a_preseed_file_is_all_that_stands_behind_the_type() {
        for value in ["$6$salt$hash", "John Doe", ""] {
            let text =
                rendered("d-i passwd/x password {{ vars.host }}\n", InstallFormat::Preseed, value).unwrap();
            assert_eq!(text, format!("d-i passwd/x password {value}\n"));
        }
    }

    #[test]
    fn a_value_in_what_a_shell_runs_is_quoted_or_refused() {
        let bare = "d-i preseed/late_command string echo {{ vars.host }} {{ url }}";
        let refused = rendered(bare, InstallFormat::Preseed, "x; reboot").unwrap_err().to_string();
        assert!(
            refused.contains("preseed/late_command") && refused.contains("{{ NAME | shell }}"),
            "{refused}"
        );
        assert!(rendered(bare, InstallFormat::Preseed, "x").is_ok());
        for hidden in ["{{ 'a ' ~ (vars.host | shell) }}", "{% set x %}{{ vars.host }}{% endset %}{{ x }}"] {
            let data = format!("d-i preseed/late_command string echo {hidden}");
            assert!(rendered(&data, InstallFormat::Preseed, "x; reboot").is_err(), "{hidden}");
        }
        let quoted = "d-i preseed/late_command string echo {{ vars.host | shell }}";
        let text = rendered(quoted, InstallFormat::Preseed, "x; reboot").unwrap();
        assert!(text.ends_with("echo 'x; reboot'"), "{text}");
        let text = rendered("echo {{ vars.host | shell }}", InstallFormat::Kickstart, "it's").unwrap();
        assert_eq!(text, r"echo 'it'\''s'", "once");
    }

    #[test]
    fn what_is_missing_or_never_ends_is_an_error() {
        for (template, wanted) in [
            ("{{ vars.hots }}", "undefined"),
            ("{{ nothing }}", "undefined"),
            ("{% include 'x' %}", "line 1"),
            ("{% import 'x' as y %}", "line 1"),
            ("{{ unclosed", "syntax"),
            ("{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}", "fuel"),
        ] {
            let error = rendered(template, InstallFormat::Ignition, "x").unwrap_err().to_string();
            assert!(error.contains(wanted), "{template}: {error}");
        }
    }

    #[test]
    fn data_that_grows_without_end_is_an_error() {
        let template = format!("{{% for a in range(2000) %}}{}{{% endfor %}}", "x".repeat(1000));
        assert_eq!(rendered(&template, InstallFormat::Preseed, ""), Err(RenderError::TooLong));
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(rendered(&long, InstallFormat::Preseed, ""), Err(RenderError::TooLong));
    }

    proptest! {
        #[test]
        fn a_value_cannot_leave_its_place_in_a_document(value in any::<String>()) {
            let text = rendered(
                "a: {{ vars.host }}\nb:\n  - {{ vars.host }}\nc: {{ name }}\n",
                InstallFormat::Autoinstall,
                &value,
            ).unwrap();
            let whole: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
            prop_assert_eq!(whole.as_mapping().unwrap().len(), 3);
            prop_assert_eq!(whole["a"].as_str().unwrap(), value.as_str());
            prop_assert_eq!(whole["b"][0].as_str().unwrap(), value.as_str());
            let json = rendered("{\"a\": {{ vars.host }}, \"b\": 1}", InstallFormat::Ignition, &value).unwrap();
            let whole: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(whole["a"].as_str().unwrap(), value.as_str());
        }

        #[test]
        fn a_value_adds_no_line_to_formats_of_lines(value in any::<String>()) {
            if let Ok(text) = rendered("a {{ vars.host }}\nb\n", InstallFormat::Kickstart, &value) {
                prop_assert_eq!(text.lines().count(), 2);
            }
        }

        #[test]
        fn no_template_panics(template in "[a-z{}%|'\"() .~+\n]{0,60}") {
            let _ = rendered(&template, InstallFormat::Preseed, "x");
        }
    }
}
