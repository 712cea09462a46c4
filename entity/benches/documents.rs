//! Documents that stay text, beside such that are parsed: `just micro`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use entity::Document;
use serde_json::{Value, json};

/// A workflow's nodes, as n8n exports them.
fn nodes(count: usize) -> String {
    let node = |index: usize| {
        json!({
            "id": format!("node-{index}"),
            "name": format!("Step \"{index}\""),
            "type": "n8n-nodes-base.httpRequest",
            "position": [index * 200, 300],
            "parameters": {
                "url": "https://example.org/items",
                "options": {"timeout": 1_000, "retry": true},
                "headers": [{"name": "X-Index", "value": index}],
            },
        })
    };
    (0..count).map(node).collect::<Value>().to_string()
}

fn documents(criterion: &mut Criterion) {
    for count in [5, 50] {
        let text = nodes(count);
        let document: Document = text.parse().expect("JSON");
        let parsed: Value = serde_json::from_str(&text).expect("JSON");
        let size = format!("{} bytes", text.len());

        let mut group = criterion.benchmark_group("from text");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(
            BenchmarkId::new("document", &size),
            &text,
            |bencher, text| {
                bencher.iter(|| text.parse::<Document>().is_ok());
            },
        );
        group.bench_with_input(BenchmarkId::new("parsed", &size), &text, |bencher, text| {
            bencher.iter(|| serde_json::from_str::<Value>(text).is_ok());
        });
        group.finish();

        let mut group = criterion.benchmark_group("to text");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("document", &size), |bencher| {
            bencher.iter(|| serde_json::to_string(black_box(&document)).is_ok());
        });
        group.bench_function(BenchmarkId::new("parsed", &size), |bencher| {
            bencher.iter(|| serde_json::to_string(black_box(&parsed)).is_ok());
        });
        group.finish();

        let mut group = criterion.benchmark_group("what is looked at before it is written");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("outline", &size), |bencher| {
            bencher.iter(|| black_box(&document).outline());
        });
        group.finish();
    }
}

criterion_group!(benches, documents);
criterion_main!(benches);
