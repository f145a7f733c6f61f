//! What the platform and a bootstrap say to each other about preloading. The reply is hostile input: packages' code may
//! have run in the bootstrap.
//!
//! The plan is five fields with a NUL between: what to preload (`auto`, `stdlib`, `off` or `list`), the modules of a
//! list with commas between, `stdlib` where the operator allows no more, the number of processors for libraries that
//! start threads, and the modules that are known to be left out, with commas between.
//!
//! The reply is a byte that says whether memory ran out, and then three fields for each module with a NUL between: the
//! name, the reason to leave the module out (empty for an imported module), and microseconds. The last three fields
//! have no name and the time of all imports.

use std::time::Duration;

use crate::config::PreloadLimit;
use crate::domain::{Excluded, Preload, Preloaded};

/// The largest number of modules in a reply.
const MAX_MODULES: usize = 2000;
/// The longest text of a field in a reply, in characters.
const MAX_FIELD: usize = 300;

/// The platform's plan for a bootstrap.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to preload, within the operator's limit.
    pub preload: Preload,
    /// The operator's limit, which holds for the modules of a list.
    pub limit: PreloadLimit,
    /// The share of processors of the container.
    pub processors: f64,
    /// What an earlier instance has found out.
    pub known: Option<Preloaded>,
}

impl Plan {
    /// The plan for a bootstrap that preloads nothing.
    pub fn none() -> Self {
        Self { preload: Preload::Off, limit: PreloadLimit::Off, processors: 1.0, known: None }
    }

    /// The plan's text.
    pub(super) fn encode(&self) -> String {
        let (mode, names) = match &self.preload {
            Preload::Modules(names) => ("list".to_owned(), names.join(",")),
            preload => (preload.to_string(), String::new()),
        };
        let limit = if self.limit == PreloadLimit::Stdlib { "stdlib" } else { "" };
        let excluded: Vec<&str> = self.known.iter().flat_map(|known| &known.excluded).map(|e| &*e.module).collect();
        let processors = self.processors.floor().max(1.0);
        format!("{mode}\0{names}\0{limit}\0{processors}\0{}", excluded.join(","))
    }

    /// What the instance of a bootstrap with this reply has preloaded, and whether memory ran out. None for a reply in
    /// another form.
    pub(super) fn read(&self, reply: &[u8]) -> Option<(Preloaded, bool)> {
        let (&oom, text) = reply.split_first()?;
        let mut found = Preloaded { asked: self.preload.to_string(), ..Preloaded::default() };
        if self.preload == Preload::Off {
            return text.is_empty().then_some((found, false));
        }
        let text = String::from_utf8_lossy(text);
        let fields: Vec<&str> = text.split('\0').collect();
        if !fields.len().is_multiple_of(3) || fields.len() > 3 * MAX_MODULES {
            return None;
        }
        for row in fields.chunks_exact(3) {
            let took = Duration::from_micros(row[2].parse().ok()?);
            match (plain(row[0]), plain(row[1])) {
                (module, _) if module.is_empty() => found.saved = took,
                (module, reason) if reason.is_empty() => found.modules.push(module),
                (module, reason) => found.excluded.push(Excluded { module, reason, took }),
            }
        }
        if let Some(known) = &self.known {
            found.excluded.splice(0..0, known.excluded.iter().cloned());
        }
        Some((found, oom != 0))
    }
}

/// A field without control characters, and not too long.
fn plain(field: &str) -> String {
    field.chars().filter(|c| !c.is_control()).take(MAX_FIELD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(preload: &str, known: Option<Preloaded>) -> Plan {
        Plan { preload: preload.parse().unwrap(), limit: PreloadLimit::Auto, processors: 1.5, known }
    }

    #[test]
    fn a_plan_has_the_documented_form() {
        let form = |plan: Plan| plan.encode().replace('\0', "|");
        assert_eq!(form(plan("auto", None)), "auto|||1|");
        assert_eq!(form(plan(r#"["json","os.path"]"#, None)), "list|json,os.path||1|");
        let excluded = ["a", "b"].map(|module| Excluded {
            module: module.to_owned(),
            reason: "prints".to_owned(),
            took: Duration::ZERO,
        });
        let known = Preloaded { excluded: excluded.into(), ..Preloaded::default() };
        let plan = Plan { limit: PreloadLimit::Stdlib, processors: 0.5, ..plan("stdlib", Some(known)) };
        assert_eq!(form(plan), "stdlib||stdlib|1|a,b");
    }

    #[test]
    fn a_reply_is_read_with_care() {
        let read = |reply: &str| plan("auto", None).read(reply.replace('|', "\0").as_bytes());
        let (found, oom) = read("|json||0|x|prints\x1b[2J|5000|||900").unwrap();
        assert_eq!((found.modules, found.saved, oom), (vec!["json".to_owned()], Duration::from_micros(900), false));
        let reason = "prints[2J".to_owned();
        assert_eq!(found.excluded, [Excluded { module: "x".to_owned(), reason, took: Duration::from_millis(5) }]);
        assert!(read("\x01||900").unwrap().1);
        assert!(read("").is_none() && read("|a|b").is_none() && read("|a|b|-1").is_none());
        assert!(read(&format!("|{}", "a|b|1|".repeat(2001))).is_none());
        let (found, _) = read(&format!("|a|{}|1", "r".repeat(1000))).unwrap();
        assert_eq!(found.excluded[0].reason.len(), MAX_FIELD);
        assert!(Plan::none().read(b"\0").is_some() && Plan::none().read(b"\0a\0\x001").is_none());
    }
}
