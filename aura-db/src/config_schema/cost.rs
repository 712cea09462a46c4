//! What `jsonschema` would have to do, counted before it does.

use std::collections::{BTreeMap, HashMap};
use std::ptr;

use jsonschema::Draft;
use serde_json::Value;

use super::SchemaProblem::{External, Invalid, TooComplex, Unsupported};
use super::{BUDGET, Result, SchemaProblem, shorten, weight};

/// Schemas in a schema, and with all that they include, each time.
const SUBSCHEMAS: usize = 10_000;
const UNFOLDED: u64 = 100_000;
/// Bytes of a JSON pointer in a schema: `jsonschema` has one for each keyword.
const POINTER: usize = 1024;
/// Patterns, bytes of one, and what it costs for each byte of a text.
const PATTERNS: usize = 200;
const PATTERN_BYTES: usize = 512;
const MATCH: u64 = 10;
/// Schemas entered within each other while checking.
const NESTED: u64 = 1000;

/// What a schema looks at, to count what checking will cost.
#[derive(Default)]
struct Node {
    /// Units for each visit, and for each byte of a string.
    own: u64,
    per_byte: u64,
    unique: bool,
    /// Schemas for the same value; for every child (at most), of which some are
    /// asked for yes or no; and for one child.
    same: Vec<usize>,
    every: Vec<usize>,
    asked: Vec<usize>,
    named: HashMap<String, usize>,
}

/// The schemas of a schema. Node 0 is the root.
pub(super) struct Graph {
    pub(super) draft: Draft,
    nodes: Vec<Node>,
    /// All nodes, each before its `same`; and the position of each.
    order: Vec<usize>,
    rank: Vec<usize>,
}

/// The schemas found, with their paths, and their index by address.
struct Found<'a> {
    root: &'a Value,
    ids: HashMap<usize, usize>,
    schemas: Vec<(&'a Value, String)>,
}

impl<'a> Found<'a> {
    fn id(&mut self, schema: &'a Value, path: String) -> usize {
        let next = self.schemas.len();
        let id = *self.ids.entry(ptr::from_ref(schema).addr()).or_insert(next);
        if id == next {
            self.schemas.push((schema, path));
        }
        id
    }

    /// The schemas in a list or map, with their keys.
    fn all(&mut self, schemas: &'a Value, path: &str) -> Vec<(String, usize)> {
        let items = schemas.as_array().into_iter().flatten().enumerate();
        let list = items.map(|(i, item)| (i.to_string(), item));
        let items = schemas.as_object().into_iter().flatten();
        let map = items.map(|(key, item)| (key.clone(), item));
        let schemas = list
            .chain(map)
            .filter(|(_, item)| item.is_object() || item.is_boolean());
        schemas
            .map(|(key, item)| (self.id(item, join(path, &key)), key))
            .map(|(id, key)| (key, id))
            .collect()
    }

    /// The schema at a `$ref`.
    fn target(&mut self, reference: &Value, path: &str) -> Result<usize> {
        let pointer = reference
            .as_str()
            .and_then(|reference| reference.strip_prefix('#'));
        let pointer = pointer.filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
        let pointer = pointer
            .and_then(decode)
            .ok_or_else(|| External(shorten(path)))?;
        let (mut schema, mut at) = (self.root, String::new());
        for token in pointer.split('/').skip(1) {
            at = format!("{at}/{token}");
            let message = "there is nothing where it refers to".into();
            let missing = || Invalid {
                path: shorten(path),
                message,
            };
            schema = self.root.pointer(&at).ok_or_else(missing)?;
            no_id(schema, &at)?;
        }
        Ok(self.id(schema, at))
    }
}

impl Graph {
    pub(super) fn new(root: &Value) -> Result<Self> {
        let (mut draft, mut nodes, mut patterns) = (Draft::Draft202012, Vec::new(), Vec::new());
        let mut found = Found {
            root,
            ids: HashMap::new(),
            schemas: Vec::new(),
        };
        found.id(root, String::new());
        while let Some((schema, path)) = found.schemas.get(nodes.len()).cloned() {
            if found.schemas.len() > SUBSCHEMAS || path.len() > POINTER {
                return Err(TooComplex("too many schemas, or too long names"));
            }
            if !nodes.is_empty() {
                no_id(schema, &path)?;
            }
            let mut node = Node::default();
            for (key, value) in schema.as_object().into_iter().flatten() {
                let at = join(&path, key);
                match key.as_str() {
                    "$schema" => {
                        let known = value
                            .as_str()
                            .and_then(known_draft)
                            .filter(|_| path.is_empty());
                        draft = known.ok_or_else(|| External(shorten(&at)))?;
                    }
                    "$dynamicRef" | "$recursiveRef" => return Err(Unsupported(at, "use $ref")),
                    "unevaluatedProperties" | "unevaluatedItems" => {
                        return Err(Unsupported(at, "use additionalProperties or items"));
                    }
                    "$ref" => node.same.push(found.target(value, &at)?),
                    "if" | "then" | "else" => node.same.push(found.id(value, at)),
                    "not" => {
                        node.own += weight(value); // an error has a copy of it
                        node.same.push(found.id(value, at));
                    }
                    "allOf" | "anyOf" | "oneOf" | "dependentSchemas" | "dependencies" => {
                        if key.starts_with('d') {
                            node.own += 8 * weight(value); // has names, too
                        }
                        node.same
                            .extend(found.all(value, &at).into_iter().map(|(_, id)| id));
                    }
                    "properties" => node.named = found.all(value, &at).into_iter().collect(),
                    "patternProperties" => {
                        for (pattern, id) in found.all(value, &at) {
                            patterns.push(pattern.len());
                            node.per_byte += MATCH;
                            node.every.push(id);
                        }
                    }
                    "items" | "prefixItems" if value.is_array() => {
                        node.every
                            .extend(found.all(value, &at).into_iter().map(|(_, id)| id));
                    }
                    "items" | "additionalItems" | "additionalProperties" => {
                        node.every.push(found.id(value, at));
                    }
                    "contains" | "propertyNames" => node.asked.push(found.id(value, at)),
                    // Not applied, but there may be something in it that is refused.
                    "$defs" | "definitions" => drop(found.all(value, &at)),
                    "contentSchema" => drop(found.id(value, at)),
                    "uniqueItems" => node.unique = value == &Value::Bool(true),
                    "pattern" => {
                        patterns.push(value.as_str().map_or(0, str::len));
                        node.per_byte += MATCH;
                    }
                    "format" | "contentEncoding" | "contentMediaType" => node.per_byte += 1,
                    "title" | "description" | "default" | "examples" | "$comment" => {}
                    "required" | "dependentRequired" => {
                        node.own += 8 * weight(value); // an error for each name
                    }
                    _ => node.own += weight(value),
                }
            }
            node.own += 1 + node.named.len() as u64;
            nodes.push(node);
        }
        if patterns.len() > PATTERNS || patterns.iter().any(|&bytes| bytes > PATTERN_BYTES) {
            return Err(TooComplex("too many patterns, or a too long one"));
        }
        Self::sort(draft, nodes, &found)
    }

    /// Orders the nodes, which fails for endless recursion.
    fn sort(draft: Draft, nodes: Vec<Node>, found: &Found<'_>) -> Result<Self> {
        let mut uses = vec![0; nodes.len()];
        nodes
            .iter()
            .flat_map(|node| &node.same)
            .for_each(|&id| uses[id] += 1);
        let mut order: Vec<usize> = (0..nodes.len()).filter(|&id| uses[id] == 0).collect();
        let mut rank = vec![0; nodes.len()];
        let mut next = 0;
        while let Some(&id) = order.get(next) {
            rank[id] = next;
            next += 1;
            for &same in &nodes[id].same {
                uses[same] -= 1;
                if uses[same] == 0 {
                    order.push(same);
                }
            }
        }
        if let Some(id) = uses.iter().position(|&uses| uses > 0) {
            return Err(SchemaProblem::Recursive(format!(
                "#{}",
                shorten(&found.schemas[id].1)
            )));
        }
        // Compiling follows every way through these, some of it more than once.
        let (mut sum, mut unfolded) = (0_u64, vec![1_u64; nodes.len()]);
        for &id in order.iter().rev() {
            for &same in &nodes[id].same {
                unfolded[id] = unfolded[id].saturating_add(unfolded[same]);
            }
            sum = sum.saturating_add(unfolded[id]);
        }
        let graph = Self {
            draft,
            nodes,
            order,
            rank,
        };
        (sum <= UNFOLDED)
            .then_some(graph)
            .ok_or(TooComplex("schemas include others too often"))
    }
}

/// How often a schema is applied to one value, at most: to collect all errors,
/// or quickly for yes or no; and how many schemas are entered before it.
#[derive(Clone, Copy, Default)]
struct Visits {
    all: u64,
    quick: u64,
    depth: u64,
}

impl Visits {
    /// Visits of something that is included. anyOf, for example, asks each schema
    /// whether it holds before it collects the errors; nothing asks more than twice.
    fn enter(&mut self, from: Self, asks: u64) {
        let quick = from.all.saturating_mul(asks).saturating_add(from.quick);
        self.all = self.all.saturating_add(from.all);
        self.quick = self.quick.saturating_add(quick);
        self.depth = self.depth.max(from.depth + 1);
    }
}

/// Refuses a config that would cost too much to check.
pub(super) fn afford(graph: &Graph, config: &Value) -> Result<()> {
    let root = Visits {
        all: 1,
        ..Visits::default()
    };
    let todo = BTreeMap::from([(graph.rank[0], root)]);
    Spent { graph, units: 0 }.visit(config, todo, 0, 0)
}

/// Counts an upper bound of what checking costs, in about as many steps.
struct Spent<'g> {
    graph: &'g Graph,
    units: u64,
}

impl Spent<'_> {
    fn spend(&mut self, times: u64, units: u64) -> Result<()> {
        self.units = self.units.saturating_add(times.saturating_mul(units));
        let enough = self.units <= BUDGET;
        enough
            .then_some(())
            .ok_or(TooComplex("this config with this schema"))
    }

    /// The schemas in `todo` (by rank) are applied to `value`, whose path has `path`
    /// bytes and ends with a key of `key` bytes. Recurses at most [`DEPTH`] times.
    fn visit(
        &mut self,
        value: &Value,
        mut todo: BTreeMap<usize, Visits>,
        key: usize,
        path: usize,
    ) -> Result<()> {
        let graph = self.graph;
        let (bytes, children, unique) = match value {
            Value::String(text) => (text.len(), 0, 0),
            Value::Array(items) if !todo.is_empty() => {
                (0, items.len(), unique_weight(items, value))
            }
            Value::Object(map) => (map.keys().map(String::len).sum(), map.len(), 0),
            _ => (0, 0, 0),
        };
        let mut below = Vec::new();
        while let Some((rank, visits)) = todo.pop_first() {
            let node = &graph.nodes[graph.order[rank]];
            if visits.depth > NESTED {
                return Err(TooComplex("schemas within each other too deeply"));
            }
            let text = node.per_byte.saturating_mul((bytes + key) as u64);
            let each = node.own + children as u64 + bytes as u64 / 16;
            let each = each
                .saturating_add(text)
                .saturating_add(unique * u64::from(node.unique));
            let error = 8 + path as u64 / 64 + visits.depth / 2;
            self.spend(visits.quick, each)?;
            self.spend(visits.all, each.saturating_add(error))?;
            for &same in &node.same {
                self.spend(1, 1)?;
                todo.entry(graph.rank[same]).or_default().enter(visits, 2);
            }
            below.push((node, visits));
        }
        let mut child = |name: &str, value: &Value| {
            let mut todo = BTreeMap::<_, Visits>::new();
            for (node, visits) in &below {
                let asked = node.asked.iter().map(|id| (id, 2));
                let every = node
                    .every
                    .iter()
                    .chain(node.named.get(name))
                    .map(|id| (id, 0));
                for (&id, asks) in every.chain(asked) {
                    self.spend(1, 1)?;
                    todo.entry(graph.rank[id]).or_default().enter(*visits, asks);
                }
            }
            self.visit(value, todo, name.len(), path + name.len() + 4)
        };
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| child("", item)),
            Value::Object(map) => map.iter().try_for_each(|(name, item)| child(name, item)),
            _ => Ok(()),
        }
    }
}

/// `uniqueItems`: arrays and objects that hash alike can be made at will, and
/// then each is compared to all others.
fn unique_weight(items: &[Value], array: &Value) -> u64 {
    let nested = items.iter().any(|item| item.is_array() || item.is_object());
    let compared = if nested { items.len() as u64 / 16 } else { 0 };
    weight(array).saturating_mul(4 + compared)
}

/// An `$id` (`id` in draft 4) changes what `#/…` means.
fn no_id(schema: &Value, path: &str) -> Result<()> {
    let is_id = |key: &&str| schema.get(*key).is_some_and(Value::is_string) && schema.is_object();
    let id = ["$id", "id"].into_iter().find(is_id);
    id.map_or(Ok(()), |id| {
        Err(Unsupported(join(path, id), "only the root may have an id"))
    })
}

fn known_draft(uri: &str) -> Option<Draft> {
    let uri = uri
        .strip_prefix("https://")
        .or_else(|| uri.strip_prefix("http://"))?;
    Some(match uri.trim_end_matches('#') {
        "json-schema.org/draft-04/schema" => Draft::Draft4,
        "json-schema.org/draft-06/schema" => Draft::Draft6,
        "json-schema.org/draft-07/schema" => Draft::Draft7,
        "json-schema.org/draft/2019-09/schema" => Draft::Draft201909,
        "json-schema.org/draft/2020-12/schema" => Draft::Draft202012,
        _ => return None,
    })
}

fn join(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Undoes the `%20` of a URI's fragment.
fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let code = part
            .get(..2)
            .filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}
