//! The table and the plot.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::Duration;

use anyhow::Result;

#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(String, String, f64)>,
    figures: BTreeMap<(String, String), f64>,
    rates: Vec<String>,
    programs: Vec<String>,
    stores: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, language: &str, key: &str, what: &str, time: Duration) {
        let ms = time.as_secs_f64() * 1e3;
        self.rows.push((language.to_owned(), what.to_owned(), ms));
        self.figures.insert((language.to_owned(), key.to_owned()), ms);
    }

    pub(crate) fn add_rate(&mut self, language: &str, clients: usize, rate: f64, containers: usize) {
        let by_hand = 1e3 / self.figures[&(language.to_owned(), "docker".to_owned())];
        let ratio = rate / by_hand;
        self.rates.push(format!("| {language} | {clients} | {rate:.0}/s | {ratio:.0} | {containers} |"));
    }

    pub(crate) fn add_program(&mut self, row: String) {
        self.programs.push(row);
    }

    pub(crate) fn add_store(&mut self, row: String) {
        self.stores.push(row);
    }

    /// Takes a note, and prints the note at once: a run that is broken off has told what it has measured.
    pub(crate) fn note(&mut self, note: String) {
        println!("{note}\n");
        self.notes.push(note);
    }

    pub(crate) fn write(&self) -> Result<()> {
        let mut rows = Vec::new();
        for (language, what, ms) in &self.rows {
            let figure = |key: &str| self.figures[&(language.clone(), key.to_owned())];
            let (host, docker) = (ms / figure("host"), ms / figure("docker"));
            rows.push(format!("| {language} | {what} | {ms:.2} | {host:.3} | {docker:.4} |"));
        }
        let tables = [
            ("| function | figure | ms | of host | of docker run |", "| --- | --- | ---: | ---: | ---: |", &rows),
            (
                "| function | clients | executions | times docker run one after the other | containers |",
                "| --- | ---: | ---: | ---: | ---: |",
                &self.rates,
            ),
            (
                "| program | warm p50, ms | of hello's | p99, ms | a second at 1 / 8 / 32 clients | host, ms | shared \
                 interpreter, ms |",
                "| --- | ---: | ---: | ---: | --- | ---: | ---: |",
                &self.programs,
            ),
            (
                "| store | warm p50, ms | p99, ms | asynchronous executions a second |",
                "| --- | ---: | ---: | ---: |",
                &self.stores,
            ),
        ];
        let mut text = String::new();
        for (head, alignment, rows) in tables.into_iter().filter(|(.., rows)| !rows.is_empty()) {
            write!(text, "{head}\n{alignment}\n{}\n\n", rows.join("\n"))?;
        }
        print!("{text}");
        for note in &self.notes {
            write!(text, "{note}\n\n")?;
        }
        fs::create_dir_all("target/bench")?;
        fs::write("target/bench/results.md", text)?;
        fs::write("target/bench/plot.svg", self.plot()?)?;
        println!("written to target/bench/results.md and plot.svg");
        Ok(())
    }

    /// Bars on a logarithmic scale, from 0.1 ms to 10 s.
    fn plot(&self) -> Result<String> {
        let height = 24 * self.rows.len() + 20;
        let mut svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='820' height='{height}' font-family='sans-serif' \
             font-size='13'>"
        );
        for (index, (language, what, ms)) in self.rows.iter().enumerate() {
            let (y, width) = (24 * index + 10, ((ms / 0.1).log10() / 5.0 * 400.0).clamp(1.0, 400.0));
            let color = if what.starts_with("execute") { "#2563eb" } else { "#9ca3af" };
            write!(svg, "<text x='8' y='{}'>{language}: {what}</text>", y + 13)?;
            write!(svg, "<rect x='300' y='{y}' width='{width:.0}' height='17' fill='{color}'/>")?;
            write!(svg, "<text x='{:.0}' y='{}'>{ms:.2} ms</text>", width + 306.0, y + 13)?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

pub(crate) fn median(times: &mut [Duration]) -> Duration {
    percentile(times, 50)
}

pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
