//! The page for readers that do not ask for OpenMetrics: Prometheus's text format 0.0.4.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>. It differs in what a family is
//! called (counters and infos by the name of their samples), knows neither units nor the type `info`,
//! and has no end.

/// What OpenMetrics calls itself.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What the older format calls itself.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether an `Accept` header asks for OpenMetrics rather than for text (RFC 9110 §12.5.1). Who asks
/// for nothing gets text, which every reader takes.
pub(super) fn wants_open_metrics(accept: &str) -> bool {
    let (mut open, mut text) = (0.0, 0.0_f64);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1.0, |quality| quality.parse::<f64>().unwrap_or(0.0));
        match media.as_str() {
            "application/openmetrics-text" => open = f64::max(open, quality),
            "text/plain" | "text/*" => text = text.max(quality),
            _ => {}
        }
    }
    open > 0.0 && open >= text
}

/// Rewrites a page of OpenMetrics.
pub(super) fn to_text(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            // The family's type comes next, and says what it is called.
            help = text.split_once(' ').map(|(_, sentence)| sentence);
        } else if let Some((family, kind)) =
            line.strip_prefix("# TYPE ").and_then(|text| text.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            if let Some(help) = help.take() {
                page.push_str(&format!("# HELP {family}{suffix} {help}\n"));
            }
            page.push_str(&format!("# TYPE {family}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            page.push_str(line);
            page.push('\n');
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preferred_is_what_is_sent() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, open) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("text/plain", false),
            ("*/*", false),
            ("", false),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.1", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text; q=nonsense", false),
        ] {
            assert_eq!(wants_open_metrics(accept), open, "{accept:?}");
        }
    }

    #[test]
    fn families_are_called_as_their_samples() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"1\"} 3\n\
                    # HELP c Facts.\n# TYPE c info\nc_info{v=\"2\"} 1\n\
                    # HELP d_seconds Time.\n# TYPE d_seconds gauge\n# UNIT d_seconds seconds\n\
                    d_seconds 1.5\n# EOF\n";
        let text = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 3\n\
                    # HELP c_info Facts.\n# TYPE c_info gauge\nc_info{v=\"2\"} 1\n\
                    # HELP d_seconds Time.\n# TYPE d_seconds gauge\nd_seconds 1.5\n";
        assert_eq!(to_text(open), text);
    }
}
