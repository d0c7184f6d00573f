//! Each contradiction by its code, and what lies just inside the limit.

use crate::config::{Config, ConfigErrors};

const UPSTREAM: &str = "[[upstreams]]\nname = \"a\"\nprefix = \"/a\"\nurl = \"http://127.0.0.1:9\"\n";

/// The refusal of an upstream `a` with these lines after it.
#[track_caller]
fn refused(lines: &str) -> ConfigErrors {
    match Config::from_toml(&format!("{UPSTREAM}{lines}")) {
        Ok(_) => panic!("accepted: {lines}"),
        Err(errors) => errors,
    }
}

#[track_caller]
fn code(lines: &str, code: &str) {
    let errors = refused(lines);
    assert!(errors.codes().eq([code]), "{lines}: {errors:#?}");
}

#[track_caller]
fn accepted(lines: &str) {
    if let Err(errors) = Config::from_toml(&format!("{UPSTREAM}{lines}")) {
        panic!("{lines}: {errors}");
    }
}

/// The refusal of one upstream written in full.
#[track_caller]
fn upstream_code(upstream: &str, code: &str) {
    let errors = Config::from_toml(&format!("[[upstreams]]\n{upstream}\n")).err().expect(upstream);
    assert!(errors.codes().eq([code]), "{upstream}: {errors}");
}

#[test]
fn a_deadline_shorter_than_one_timeout_is_refused_where_it_is_written() {
    let errors = refused("timeout = \"30s\"\n[upstreams.retry]\ndeadline = \"29s\"\n");
    assert!(errors.codes().eq(["deadline_too_short"]));
    assert!(errors.to_string().starts_with("ringback.toml:7: upstream `a`: `retry.deadline`"), "{errors}");
    accepted("timeout = \"30s\"\n[upstreams.retry]\ndeadline = \"30s\"\n");
}

#[test]
fn a_whole_attempt_shorter_than_its_first_part_is_refused() {
    code("timeout = \"2s\"\ntotal_timeout = \"1s\"\n", "total_timeout_too_short");
    accepted("timeout = \"2s\"\ntotal_timeout = \"2s\"\n");
}

#[test]
fn two_upstreams_with_one_prefix_are_refused() {
    code("[[upstreams]]\nname = \"b\"\nprefix = \"/a\"\nurl = \"http://b\"\n", "prefix_twice");
    accepted("[[upstreams]]\nname = \"b\"\nprefix = \"/a/b\"\nurl = \"http://b\"\n");
}

#[test]
fn two_upstreams_with_one_name_are_refused() {
    code("[[upstreams]]\nname = \"a\"\nprefix = \"/b\"\nurl = \"http://b\"\n", "name_twice");
}

#[test]
fn an_upstream_over_the_results_of_another_is_refused() {
    for prefix in ["/a/results", "/a/results/x"] {
        let lines = format!("[[upstreams]]\nname = \"b\"\nprefix = \"{prefix}\"\nurl = \"http://b\"\n");
        if prefix == "/a/results" { code(&lines, "results_hidden") } else { accepted(&lines) }
    }
    code(
        "results_path = \"/r/s\"\n[[upstreams]]\nname = \"b\"\nprefix = \"/a/r\"\nurl = \"http://b\"\n",
        "results_hidden",
    );
    accepted("[[upstreams]]\nname = \"b\"\nprefix = \"/a/resultsets\"\nurl = \"http://b\"\n");
    accepted("[[upstreams]]\nname = \"b\"\nprefix = \"/\"\nurl = \"http://b\"\n");
}

#[test]
fn no_upstream_at_all_is_refused() {
    let errors = Config::from_toml("").err().expect("nothing to do");
    assert!(errors.codes().eq(["no_upstream"]), "{errors}");
}

#[test]
fn a_prefix_that_is_not_whole_segments_is_refused() {
    for prefix in ["data", "", "/data/", "/a//b", "/a/../b", "/%2e%2E/b", "/a?b", "/a b"] {
        upstream_code(&format!("name = \"n\"\nurl = \"http://a\"\nprefix = \"{prefix}\""), "prefix_invalid");
    }
}

#[test]
fn a_results_path_that_is_not_whole_segments_is_refused() {
    for path in ["", "/", "results", "/results/", "/a//b", "/.", "/a#b"] {
        code(&format!("results_path = \"{path}\""), "results_path_invalid");
    }
}

#[test]
fn an_upstream_url_that_is_more_or_less_than_a_base_is_refused() {
    for url in
        ["", "/v1", "ftp://a", "http://u:p4ss@a", "http://a?b", "http://a#b", "http://a:99999", "http://"]
    {
        let errors = Config::from_toml(&format!("[[upstreams]]\nurl = \"{url}\"\n")).err().expect(url);
        assert!(errors.codes().eq(["upstream_url_invalid"]), "{url}: {errors}");
        assert!(!errors.to_string().contains("p4ss"), "{errors}");
    }
}

#[test]
fn a_seventh_webhook_retry_is_refused() {
    code(
        "[webhooks]\ndelays = [\"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\"]\n",
        "too_many_webhook_delays",
    );
    accepted("[webhooks]\ndelays = [\"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\"]\n");
    accepted("[webhooks]\ndelays = []\n");
}

#[test]
fn more_than_twenty_retries_are_refused() {
    let delays = |count| format!("[upstreams.retry]\ndelays = [{}]\n", vec!["\"1s\""; count].join(", "));
    code(&delays(21), "too_many_retries");
    accepted(&delays(20));
}

#[test]
fn jwt_without_issuer_or_audience_is_refused() {
    let jwt = "[upstreams.identity]\nmode = \"jwt\"\njwks_url = \"http://a/jwks\"\n";
    code(&format!("{jwt}audience = \"x\"\n"), "jwt_incomplete");
    code(&format!("{jwt}issuer = \"x\"\n"), "jwt_incomplete");
    accepted(&format!("{jwt}issuer = \"x\"\naudience = \"x\"\n"));
    code(&format!("{jwt}issuer = \"x\"\naudience = \"x\"\nclaim = \"\"\n"), "claim_missing");
}

#[test]
fn jwt_without_exactly_one_source_of_keys_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("jwks.json");
    std::fs::write(&keys, "{}").unwrap();
    let jwt = "[upstreams.identity]\nmode = \"jwt\"\nissuer = \"x\"\naudience = \"x\"\n";
    code(jwt, "jwks_source");
    code(&format!("{jwt}jwks_url = \"http://a/jwks\"\njwks_file = {keys:?}\n"), "jwks_source");
    accepted(&format!("{jwt}jwks_file = {keys:?}\n"));
    code(&format!("{jwt}jwks_url = \"jwks\"\n"), "jwks_url_invalid");
}

#[test]
fn an_unspecified_listen_address_needs_a_public_url() {
    for listen in ["0.0.0.0:8080", "[::]:8080", "0.0.0.0:0"] {
        code(&format!("[server]\nlisten = \"{listen}\"\n"), "public_url_missing");
        accepted(&format!("[server]\nlisten = \"{listen}\"\npublic_url = \"https://api.example\"\n"));
    }
}

#[test]
fn a_public_url_is_scheme_host_and_port() {
    for url in
        ["api.example", "ftp://a", "http://a/b", "http://a?b", "http://a#b", "http://u@a", "http://a:0"]
    {
        code(&format!("[server]\npublic_url = \"{url}\"\n"), "public_url_invalid");
    }
    let config = Config::from_toml(&format!("{UPSTREAM}[server]\npublic_url = \"https://a:8443/\"\n"));
    assert_eq!(config.unwrap_or_else(|e| panic!("{e}")).server.public_url, "https://a:8443");
}

#[test]
fn one_address_for_both_listeners_is_refused_unless_any_port_will_do() {
    code("[server]\nlisten = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:1\"\n", "listen_twice");
    accepted("[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n");
}

#[test]
fn a_jitter_that_is_no_fraction_is_refused() {
    for jitter in ["-0.1", "1.1", "nan"] {
        code(&format!("[upstreams.retry]\njitter = {jitter}\n"), "jitter_out_of_range");
        code(&format!("[webhooks]\njitter = {jitter}\n"), "jitter_out_of_range");
    }
    accepted("[webhooks]\njitter = 1\n[upstreams.retry]\njitter = 0\n");
}

#[test]
fn a_limit_of_zero_is_refused() {
    for lines in [
        "concurrency = 0",
        "max_result_bytes = 0",
        "[webhooks]\nconcurrency = 0",
        "[webhooks]\nper_host_concurrency = 0",
        "[server]\nmax_queued_tasks = 0",
        "[server]\nmax_waiters = 0",
        "[server]\nmax_connections = 0",
    ] {
        code(lines, "limit_out_of_range");
    }
}

#[test]
fn a_timeout_of_zero_is_refused() {
    for lines in [
        "timeout = \"0s\"",
        "idle_timeout = \"0s\"",
        "[webhooks]\ntimeout = \"0s\"",
        "[server]\nheader_timeout = \"0s\"",
        "[server]\nbody_timeout = \"0s\"",
    ] {
        code(lines, "timeout_zero");
    }
}

#[test]
fn a_limit_that_the_http_library_cannot_keep_is_refused() {
    code("[server]\nmax_header_bytes = \"4KB\"\n", "limit_out_of_range");
    code("[server]\nmax_uri_bytes = \"64KB\"\n", "limit_out_of_range");
    accepted("[server]\nmax_header_bytes = \"8KB\"\nmax_uri_bytes = 65534\n");
}

#[test]
fn an_empty_data_directory_is_refused() {
    code("[server]\ndata_dir = \"\"\n", "data_dir_missing");
}

#[test]
fn more_threads_than_any_machine_has_are_refused() {
    code("[server]\nthreads = 1025\n", "limit_out_of_range");
    accepted("[server]\nthreads = 1024\n");
}

#[test]
fn a_task_that_is_forgotten_before_its_result_is_refused() {
    code("[retention]\nresults = \"2h\"\ntasks = \"1h\"\n", "retention_order");
    accepted("[retention]\nresults = \"1h\"\ntasks = \"1h\"\n");
}

#[test]
fn a_store_that_one_task_could_fill_is_refused() {
    code("[retention]\nmax_bytes = \"1023KB\"\n[server]\nmax_body_bytes = 1\n", "max_bytes_too_small");
    let sizes = |body, result, store| {
        format!(
            "max_result_bytes = \"{result}\"\n[server]\nmax_body_bytes = \"{body}\"\n[retention]\nmax_bytes = \"{store}\"\n"
        )
    };
    code(&sizes("10MB", "3MB", "9MB"), "max_bytes_below");
    code(&sizes("3MB", "10MB", "9MB"), "max_bytes_below");
    accepted(&sizes("10MB", "10MB", "10MB"));
    accepted("[retention]\nmax_bytes = 0\nresults_at_least = \"99d\"\n");
    code("[retention]\nmax_bytes = \"-1\"\n", "bad_value");
    code("[retention]\nmax_bytes = \"much\"\n", "bad_value");
}

#[test]
fn a_header_that_http_cannot_carry_is_refused() {
    for (lines, expected) in [
        ("set = { \"X Y\" = \"a\" }", "header_name_invalid"),
        ("set = { X-Y = \"a\\nb\" }", "header_value_invalid"),
        ("remove = [\"X Y\"]", "header_name_invalid"),
    ] {
        code(&format!("[upstreams.headers]\n{lines}\n"), expected);
    }
    code("[upstreams.identity]\nheader = \"X Y\"\n", "identity_header_invalid");
}

#[test]
fn a_header_of_the_connection_cannot_be_set_or_removed() {
    for name in ["Connection", "Transfer-Encoding", "content-length", "Host", "Upgrade", "TE", "keep-alive"] {
        code(&format!("[upstreams.headers]\nset = {{ {name} = \"a\" }}\n"), "header_reserved");
    }
    for name in ["Host", "content-length"] {
        code(&format!("[upstreams.headers]\nremove = [\"{name}\"]\n"), "header_reserved");
    }
    accepted("[upstreams.headers]\nset = { X-Api-Key = \"a\" }\nremove = [\"Cookie\"]\n");
}

#[test]
fn a_header_set_by_text_and_by_file_is_refused() {
    code(
        "[upstreams.headers]\nset = { X-A = \"a\" }\nset_from_file = { x-a = \"/dev/null\" }\n",
        "header_twice",
    );
}

#[test]
fn a_named_file_that_cannot_be_read_is_refused() {
    for lines in [
        "ca_file = \"/nonexistent/ca.pem\"",
        "ca_file = \"/\"",
        "[upstreams.headers]\nset_from_file = { X-A = \"/nonexistent/key\" }",
        "[upstreams.identity]\nmode = \"jwt\"\nissuer = \"x\"\naudience = \"x\"\njwks_file = \"/nonexistent/jwks\"",
    ] {
        code(lines, "file_unreadable");
    }
}

#[test]
fn a_store_that_this_build_lacks_is_refused() {
    for url in ["postgres://u:p4ss@h/db", "postgresql://h"] {
        let errors = refused(&format!("[store]\nurl = \"{url}\"\n"));
        assert!(
            errors.codes().eq(["store_not_supported"]) && !errors.to_string().contains("p4ss"),
            "{errors}"
        );
    }
    for url in ["", "sqlite:", "mysql://h", "/path"] {
        code(&format!("[store]\nurl = \"{url}\"\n"), "store_url_invalid");
    }
    accepted("[store]\nurl = \"sqlite:/var/lib/ringback.db\"\n");
}

#[test]
fn a_body_that_no_buffer_could_hold_is_refused() {
    code("[server]\nmax_body_bytes = \"2MB\"\nmax_buffered_bytes = \"1MB\"\n", "body_above_buffer");
    accepted("[server]\nmax_body_bytes = \"1MB\"\nmax_buffered_bytes = \"1MB\"\n");
}

#[test]
fn a_cors_origin_that_no_browser_sends_is_refused() {
    for origin in ["app.example", "https://app.example/", "https://*.example", "null"] {
        code(&format!("[upstreams.cors]\norigins = [\"{origin}\"]\n"), "cors_origin_invalid");
    }
    accepted("[upstreams.cors]\norigins = [\"*\", \"https://app.example\", \"http://localhost:3000\"]\n");
}

#[test]
fn a_webhook_host_is_a_name() {
    code("[webhooks]\nallow_hosts = [\"https://hooks.example\"]\n", "webhook_host_invalid");
    accepted("[webhooks]\nallow_hosts = [\"hooks.example\"]\nallow_networks = [\"10.0.0.0/8\", \"::1\"]\n");
}

#[test]
fn the_key_set_has_a_path_and_signatures_a_known_scheme() {
    for path in ["", "keys", "/", "/a/../b", "/a?b"] {
        code(&format!("[webhooks]\njwks_path = \"{path}\"\n"), "jwks_path_invalid");
    }
    accepted("[webhooks]\njwks_path = \"/keys\"\nsignatures = [\"v1a\"]\n");
    code("[webhooks]\nsignatures = [\"V1\"]\n", "bad_value");
    let text = "[[upstreams]]\nurl = \"http://a\"\n[webhooks]\nsignatures = []\n";
    let unsigned = Config::from_toml(text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(unsigned.relaxations().iter().any(|said| said.contains("not signed")));
}

#[test]
fn contradictions_are_reported_together() {
    let errors = refused("timeout = \"0s\"\nconcurrency = 0\n[retention]\ntasks = \"1h\"\n");
    assert!(errors.codes().eq(["timeout_zero", "limit_out_of_range", "retention_order"]), "{errors}");
}
