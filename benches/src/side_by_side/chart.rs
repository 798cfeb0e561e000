//! The chart: an SVG, written by hand. A dot a ratio, with its least and greatest.

use std::fmt::Write as _;

use crate::BoxError;

use super::goals;
use super::report::{cpu, ratio, title_of};
use super::rows::Kept;
use super::scenario::by_id;

const SCENARIOS: [&str; 8] = ["s1", "s2", "s3", "s4", "s5a", "s5b", "s8", "s11"];
const AGAINST: [&str; 10] = [
    "nginx",
    "nginx-current",
    "nginx-mainline",
    "haproxy",
    "haproxy-current",
    "envoy",
    "pingora",
    "axum-reverse-proxy",
    "legacy-client",
    "floor-hyper",
];
const WIDTH: f64 = 760.0;
const LEFT: f64 = 195.0;
const RIGHT: f64 = 620.0;
const ROW: f64 = 17.0;
/// Ratios to the right of this are drawn at the edge; their numbers say what they are.
const GREATEST: f64 = 1.5;

const STYLE: &str = "\
.paper{fill:#fff}text{font:12px system-ui,sans-serif;fill:#24292f}.head{font-weight:600}\
.quiet{fill:#57606a}.grid{stroke:#d0d7de}.one{stroke:#57606a;stroke-width:1.5}\
.less{fill:#1a7f37;stroke:#1a7f37}.more{fill:#bc4c00;stroke:#bc4c00}.same{fill:#6e7781;stroke:#6e7781}\
.range{stroke-width:1}.sure{stroke-width:5}.goal{stroke:#0969da;stroke-width:2}.floor{font-style:italic}\
@media(prefers-color-scheme:dark){.paper{fill:#0d1117}text{fill:#e6edf3}.quiet{fill:#9198a1}\
.grid{stroke:#3d444d}.one{stroke:#9198a1}.less{fill:#3fb950;stroke:#3fb950}\
.more{fill:#f0883e;stroke:#f0883e}.same{fill:#9198a1;stroke:#9198a1}.goal{stroke:#4493f8}}";

fn x(ratio: f64) -> f64 {
    LEFT + ratio.clamp(0.0, GREATEST) / GREATEST * (RIGHT - LEFT)
}

/// Draws what there is.
pub(crate) fn draw(read: &impl Fn(&str) -> Result<Kept, BoxError>) -> Result<String, BoxError> {
    let (mut body, mut y) = (String::new(), 78.0);
    for id in SCENARIOS {
        let Kept { rows, versions, .. } = read(id)?;
        let ratios: Vec<_> = AGAINST
            .iter()
            .filter_map(|other| Some((*other, ratio(&rows, "ours", other, cpu)?)))
            .collect();
        if ratios.is_empty() {
            continue;
        }
        let title = by_id(id).map(|scenario| scenario.title).unwrap_or_default();
        let name = title_of(id);
        let _ = writeln!(
            body,
            r#"<text class="head" x="12" y="{y}">{name} · {title}</text>"#
        );
        y += ROW;
        for (other, ratio) in ratios {
            let (low, high) = ratio.interval;
            let class = if high < 1.0 {
                "less"
            } else if low > 1.0 {
                "more"
            } else {
                "same"
            };
            let (label, middle) = (
                if other == "floor-hyper" {
                    "floor"
                } else {
                    "quiet"
                },
                y - 4.0,
            );
            let _ = writeln!(
                body,
                r#"<text class="{label}" x="{}" y="{y}" text-anchor="end">{}</text>"#,
                LEFT - 10.0,
                versions.label(other)
            );
            if let Some(goal) = goals::of(id, "ours", other) {
                let (at, top, bottom) = (x(goal), middle - 6.0, middle + 6.0);
                let _ = writeln!(
                    body,
                    r#"<line class="goal" x1="{at:.1}" x2="{at:.1}" y1="{top}" y2="{bottom}"/>"#
                );
            }
            let _ = writeln!(
                body,
                r#"<line class="range {class}" x1="{:.1}" x2="{:.1}" y1="{middle}" y2="{middle}"/><line class="sure {class}" x1="{:.1}" x2="{:.1}" y1="{middle}" y2="{middle}"/><circle class="{class}" cx="{:.1}" cy="{middle}" r="3.5"/><text x="{}" y="{y}">{}</text>"#,
                x(ratio.min),
                x(ratio.max),
                x(low),
                x(high),
                x(ratio.median),
                RIGHT + 12.0,
                ratio.with_interval(2)
            );
            y += ROW;
        }
        y += 8.0;
    }
    let mut grid = String::new();
    for tenth in (0..=6).map(|step| f64::from(step) * 0.25) {
        let (at, class) = (x(tenth), if tenth == 1.0 { "one" } else { "grid" });
        let _ = writeln!(
            grid,
            r#"<line class="{class}" x1="{at:.1}" x2="{at:.1}" y1="60" y2="{y:.0}"/><text class="quiet" x="{at:.1}" y="54" text-anchor="middle">{tenth:.2}</text>"#
        );
    }
    let height = y + 12.0;
    Ok(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" role="img" aria-label="CPU time a request of mesh-ingress, to that of others">
<style>{STYLE}</style>
<rect class="paper" width="{WIDTH}" height="{height:.0}" rx="6"/>
<text class="head" x="12" y="20">CPU time a request: mesh-ingress to each of the others</text>
<text class="quiet" x="12" y="37">left of 1.00: mesh-ingress takes less · dot: median, bar: its 95 % interval, line: least to greatest · blue: goal</text>
{grid}{body}</svg>
"#
    ))
}
