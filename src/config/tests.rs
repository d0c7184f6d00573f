//! Loading as a whole: what wins, what is refused and where it says so.

mod checks;
mod defaults;

use std::time::Duration;

use super::*;

/// A file with one upstream and these lines after it.
fn file(lines: &str) -> String {
    format!("[[upstreams]]\nname = \"bank\"\nprefix = \"/data/v1\"\nurl = \"http://127.0.0.1:9/v1\"\n{lines}")
}

fn messages(text: &str) -> Vec<String> {
    match Config::from_toml(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

fn with_env(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(Sources { base: Some(text.to_owned()), env, ..Sources::default() })
}

fn overlaid(base: &str, over: &str) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("over.toml");
    std::fs::write(&path, over).unwrap();
    Config::load(Sources { base: Some(base.to_owned()), file: Some(path), ..Sources::default() })
}

fn flag(name: &'static str, key: &'static str, value: &str) -> Flag {
    Flag { name, key, value: value.to_owned() }
}

#[test]
fn an_upstream_says_only_what_differs_from_the_template() {
    let config =
        Config::from_toml("[[upstreams]]\nurl = \"http://127.0.0.1:9/\"\n").unwrap_or_else(|e| panic!("{e}"));
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.url, "http://127.0.0.1:9");
    assert_eq!((upstream.prefix.as_str(), upstream.name.as_str()), ("/", "/"));
    assert_eq!(upstream.retry.delays.len(), 6);
    assert_eq!(upstream.identity.mode, IdentityMode::Opaque);
    assert_eq!(config.server.public_url, "http://127.0.0.1:8080");
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_the_nearest_key() {
    assert_eq!(
        messages(&file("\n[webhooks]\ntime_out = \"5s\"\n")),
        ["ringback.toml:7: unknown key `webhooks.time_out`; did you mean `webhooks.timeout`?"]
    );
}

#[test]
fn the_nearest_key_is_found_in_other_sections_and_for_sections_too() {
    for (lines, near) in [
        ("concurency = 5", "upstreams.concurrency"),
        ("[webhook]", "webhooks"),
        ("[server]\nadmin_listn = \"x\"", "server.admin_listen"),
        ("[upstreams.retries]\ndelays = []", "upstreams.retry"),
        ("[server]\nresults_path = \"/r\"", "upstreams.results_path"),
        ("[upstreams.identity]\njwks_uri = \"\"", "upstreams.identity.jwks_url"),
    ] {
        let said = messages(&file(lines)).join("\n");
        assert!(said.ends_with(&format!("did you mean `{near}`?")), "{lines}: {said}");
    }
    let said = messages(&file("[server]\nxyzzy = 1")).join("\n");
    assert!(said.ends_with("`server.xyzzy`; config.default.toml lists every key"), "{said}");
}

#[test]
fn every_problem_is_reported_at_once() {
    let said = messages(&file(
        "timeout = 5\nbogus = 1\n[webhooks]\ntimeout = \"soon\"\ndelays = [\"1s\", \"x\"]\nports = [70000]\n[server]\nlisten = \"localhost:8080\"\n",
    ));
    assert_eq!(said.len(), 6, "{said:#?}");
    for (line, words) in [
        (5, "a duration such as"),
        (6, "unknown key `upstreams.bogus`"),
        (8, "`webhooks.timeout`: `soon` is not a duration"),
        (9, "`webhooks.delays`: `x` is not a duration"),
        (10, "`webhooks.ports`"),
        (12, "`server.listen`: `localhost:8080` is not an address"),
    ] {
        let place = format!("ringback.toml:{line}: ");
        assert!(
            said.iter().any(|said| said.starts_with(&place) && said.contains(words)),
            "{line} {words}: {said:#?}"
        );
    }
}

#[test]
fn a_syntax_error_names_its_line() {
    let said = messages("[server]\nlisten = \n");
    assert!(said[0].starts_with("ringback.toml:2: not TOML: "), "{said:?}");
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn a_section_and_a_value_are_not_mistaken_for_each_other() {
    assert!(
        messages(&file("[webhooks.timeout]\nx = 1")).join("").contains("`webhooks.timeout`: is one value")
    );
    assert!(messages("webhooks = 5\n").join("").contains("`webhooks`: is a section"));
    assert!(messages("upstreams = 5\n").join("").contains("`upstreams`"));
    assert!(messages("upstreams = [5]\n").join("").contains("`upstreams`: is a section"));
}

#[test]
fn upstream_settings_without_an_entry_are_refused_with_the_way_to_write_them() {
    let said = messages("[upstreams.retry]\ndelays = [\"50ms\"]\n");
    assert!(said[0].starts_with("ringback.toml:1: `[upstreams.retry]` stands alone"), "{said:?}");
    assert!(said[0].contains("write `[[upstreams]]` above it"), "{said:?}");
}

#[test]
fn an_entry_with_neither_name_nor_prefix_changes_the_one_at_its_position() {
    let config = overlaid(&file(""), "[[upstreams]]\n[upstreams.retry]\ndelays = [\"50ms\"]\n")
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.upstreams.len(), 1);
    assert_eq!(config.upstreams[0].name, "bank");
    assert_eq!(config.upstreams[0].retry.delays, [Duration::from_millis(50)]);
    assert_eq!(config.upstreams[0].retry.deadline, Duration::from_mins(50));
}

#[test]
fn an_entry_finds_its_own_by_name_then_by_prefix_else_it_is_added() {
    let over = "[[upstreams]]\nname = \"new\"\nprefix = \"/new\"\nurl = \"http://b\"\n\
                [[upstreams]]\nname = \"bank\"\ntimeout = \"1s\"\n";
    let config = overlaid(&file(""), over).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["bank", "new"]);
    assert_eq!(config.upstreams[0].timeout, Duration::from_secs(1));

    let over = "[[upstreams]]\nprefix = \"/data/v1\"\ntimeout = \"2s\"\n";
    let config = overlaid(&file(""), over).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((config.upstreams.len(), config.upstreams[0].timeout), (1, Duration::from_secs(2)));
}

#[test]
fn two_entries_of_one_file_never_change_each_other() {
    let over = "[[upstreams]]\nname = \"bank\"\n[[upstreams]]\nname = \"bank\"\nprefix = \"/b\"\nurl = \"http://b\"\n";
    let errors = overlaid(&file(""), over).err().expect("one name twice");
    assert_eq!(errors.codes().collect::<Vec<_>>(), ["name_twice"]);
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let base = file("[webhooks]\ntimeout = \"1s\"\nconcurrency = 1\nper_host_concurrency = 1\n");
    let env = [("RINGBACK_WEBHOOKS__CONCURRENCY", "2"), ("RINGBACK_WEBHOOKS__PER_HOST_CONCURRENCY", "2")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let flags = vec![flag("--x", "webhooks.per_host_concurrency", "3")];
    let config = Config::load(Sources { base: Some(base), env, flags, ..Sources::default() })
        .unwrap_or_else(|e| panic!("{e}"));
    let webhooks = &config.webhooks;
    assert_eq!(webhooks.timeout, Duration::from_secs(1));
    assert_eq!((webhooks.concurrency, webhooks.per_host_concurrency), (2, 3));
}

#[test]
fn a_variable_is_a_toml_value_where_that_parses_else_a_text() {
    let config = with_env(
        &file(""),
        &[
            ("RINGBACK_WEBHOOKS__TIMEOUT", "5s"),
            ("RINGBACK_WEBHOOKS__ALLOW_HTTP", "true"),
            ("RINGBACK_WEBHOOKS__ALLOW_HOSTS", "[\"a\", \"b\"]"),
            ("RINGBACK_WEBHOOKS__PORTS__1", "8443"),
            ("RINGBACK_WEBHOOKS__DELAYS__0", "1ms"),
            ("RINGBACK_SERVER__MAX_BODY_BYTES", "1024"),
            ("RINGBACK_SERVER__LISTEN", "127.0.0.1:1234"),
            ("RINGBACK_UPSTREAMS__0__NAME", "123"),
            ("RINGBACK_UPSTREAMS__0__IDENTITY__CLAIM", "\"quoted\""),
            ("RINGBACK_UPSTREAMS__0__RETRY__JITTER", "0.5"),
            ("RINGBACK_UPSTREAMS__0__HEADERS__SET__X_API_KEY", "5"),
            ("RINGBACK_UPSTREAMS__1", "{ prefix = \"/b\", url = \"http://b\" }"),
            ("RINGBACK_KEY_FILE", "/not/configuration"),
            ("RINGBACK_LOG", "debug"),
            ("OTHER__THING", "1"),
        ],
    )
    .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.webhooks.timeout, Duration::from_secs(5));
    assert!(config.webhooks.allow_http);
    assert_eq!(config.webhooks.allow_hosts, ["a", "b"]);
    assert_eq!(config.webhooks.ports, [443, 8443]);
    assert_eq!(config.webhooks.delays[..2], [Duration::from_millis(1), Duration::from_secs(2)]);
    assert_eq!(config.server.max_body_bytes, 1024);
    assert_eq!(config.server.public_url, "http://127.0.0.1:1234");
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.name.as_str(), upstream.identity.claim.as_str()), ("123", "quoted"));
    assert_eq!(upstream.headers.set["x-api-key"], "5");
    assert_eq!(config.upstreams[1].name, "/b");
}

#[test]
fn a_wrong_variable_is_named_in_place_of_file_and_line() {
    let said = |name: &str, value: &str| with_env(&file(""), &[(name, value)]).err().expect(name).to_string();
    assert_eq!(
        said("RINGBACK_WEBHOOKS__TIME_OUT", "5s"),
        "RINGBACK_WEBHOOKS__TIME_OUT: unknown key `webhooks.time_out`; did you mean `webhooks.timeout`?"
    );
    assert!(
        said("RINGBACK_WEBHOOKS__TIMEOUT", "x")
            .starts_with("RINGBACK_WEBHOOKS__TIMEOUT: `webhooks.timeout`: `x`")
    );
    assert!(
        said("RINGBACK_WEBHOOKS__PORTS__7", "1")
            .contains("has 1 entries, so the next one is number 1, not 7")
    );
    assert!(said("RINGBACK_UPSTREAMS__BANK__URL", "http://a").contains("by a number"));
    assert!(
        said("RINGBACK_WEBHOOKS__JITTER", "7")
            .starts_with("RINGBACK_WEBHOOKS__JITTER: `webhooks.jitter` must")
    );
}

#[test]
fn variables_grow_a_list_by_number_not_by_alphabet() {
    let names: Vec<String> = (0..12).map(|index| format!("RINGBACK_UPSTREAMS__{index}__PREFIX")).collect();
    let urls: Vec<String> = (0..12).map(|index| format!("RINGBACK_UPSTREAMS__{index}__URL")).collect();
    let prefixes: Vec<String> = (0..12).map(|index| format!("/p{index}")).collect();
    let mut env: Vec<(&str, &str)> =
        names.iter().zip(&prefixes).map(|(n, p)| (n.as_str(), p.as_str())).collect();
    env.extend(urls.iter().map(|name| (name.as_str(), "http://a")));
    let config = with_env("", &env).unwrap_or_else(|e| panic!("{e}"));
    let read: Vec<_> = config.upstreams.iter().map(|upstream| upstream.prefix.clone()).collect();
    assert_eq!(read, prefixes);
}

#[test]
fn the_upstream_flag_alone_is_a_whole_configuration() {
    let flags = vec![flag("--upstream", "upstreams.0.url", "http://127.0.0.1:9000")];
    let config = Config::load(Sources { flags, ..Sources::default() }).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((config.upstreams[0].prefix.as_str(), config.upstreams.len()), ("/", 1));
}

#[test]
fn the_upstream_flag_does_not_guess_among_several() {
    let base = file("[[upstreams]]\nprefix = \"/b\"\nurl = \"http://b\"\n");
    let flags = vec![flag("--upstream", "upstreams.0.url", "http://a")];
    let errors = Config::load(Sources { base: Some(base), flags, ..Sources::default() }).err().expect("two");
    assert_eq!(errors.codes().collect::<Vec<_>>(), ["upstream_ambiguous"]);
}

#[test]
fn dev_relaxes_what_is_not_configured() {
    let dev = |text: &str| {
        Config::load(Sources { base: Some(text.to_owned()), dev: true, ..Sources::default() })
            .unwrap_or_else(|e| panic!("{e}"))
    };
    let config = dev(&file(""));
    assert_eq!(config.upstreams[0].identity.mode, IdentityMode::None);
    assert!(config.webhooks.allow_loopback && !config.webhooks.allow_http);
    assert_eq!(config.relaxations().len(), 2);
    let config = dev(&file("[upstreams.identity]\nmode = \"opaque\"\n"));
    assert_eq!(config.upstreams[0].identity.mode, IdentityMode::Opaque);
    assert!(Config::from_toml(&file("")).is_ok_and(|config| config.relaxations().is_empty()));
}

#[test]
fn a_missing_file_is_one_clear_line() {
    let file = Some("/nonexistent/ringback.toml".into());
    let errors = Config::load(Sources { file, ..Sources::default() }).err().expect("no file");
    assert_eq!(
        errors.to_string(),
        "cannot read `/nonexistent/ringback.toml`: No such file or directory (os error 2)"
    );
}

#[test]
fn header_values_come_from_files_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, " s3cret\n").unwrap();
    let text = file(&format!("[upstreams.headers]\nset_from_file = {{ X-Api-Key = {path:?} }}\n"));
    let config = Config::from_toml(&text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.upstreams[0].headers.set["X-Api-Key"], "s3cret");
}

#[test]
fn a_header_in_another_letter_case_replaces_the_one_below() {
    let base = file("[upstreams.headers]\nset = { X-Api-Key = \"old\" }\n");
    let config = with_env(&base, &[("RINGBACK_UPSTREAMS__0__HEADERS__SET__X_API_KEY", "new")]);
    let set = &config.unwrap_or_else(|e| panic!("{e}")).upstreams[0].headers.set;
    assert_eq!(
        set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(),
        [("x-api-key", "new")]
    );
}

#[test]
fn what_is_shown_reads_back_as_the_same_and_hides_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "s3cret").unwrap();
    let text = file(&format!(
        "[upstreams.headers]\nset = {{ X-Key = \"s3cret\" }}\nset_from_file = {{ X-Two = {path:?} }}\n[webhooks]\ntimeout = \"7s\"\n"
    ));
    let shown = load::from_text(&text).unwrap_or_else(|e| panic!("{e}")).shown;
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("set = { X-Key = \"(hidden)\" }"), "{shown}");
    assert!(shown.contains("timeout = \"7s\"  # ringback.toml:9"), "{shown}");
    assert!(shown.contains("url = \"http://127.0.0.1:9/v1\"  # ringback.toml:4"), "{shown}");
    let again = load::from_text(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}")).shown;
    let plain =
        |shown: &str| shown.lines().map(|l| l.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(plain(&shown), plain(&again));
}

#[test]
fn no_complaint_quotes_a_header_value() {
    for lines in [
        "[upstreams.headers]\nset = { X-Key = 12345 }\n",
        "[upstreams.headers]\nset = { X-Key = [\"12345\"] }\n",
        "[upstreams.headers]\nset = { X-Key = \"12345\\u0000\" }\n",
        "[upstreams.headers]\nset = { Connection = \"12345\" }\n",
        "[upstreams.headers]\nset = \"12345\"\n",
        "[upstreams.headers]\nset = { X-Key = \"12345 }\n",
    ] {
        let said = messages(&file(lines)).join("\n");
        assert!(!said.is_empty() && !said.contains("12345"), "{lines}: {said}");
    }
}
