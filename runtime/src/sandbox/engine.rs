//! One engine for the process: how guests are compiled, and what they get to run in.

use std::num::NonZeroUsize;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails, WasmFeatures};

/// Above this no app's memory limit can go.
pub(super) const MEMORY_MAX_BYTES: usize = 256 << 20;
/// Room for the tables of large interpreters.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Components made from Python have a core instance for each of their libraries.
const CORE_INSTANCES_PER_COMPONENT: u32 = 200;
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 16;
/// Pages of a dropped instance that stay mapped: without this, dropping one that touched 64 pages takes 142 µs instead of 14.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// Functions of a guest's stack that are looked up at a stop, innermost first: some lead to the
/// trap itself, and each costs time with the guest's debug information.
const STACK_FRAMES_MAX: NonZeroUsize = NonZeroUsize::new(12).unwrap();

/// Makes the engine, for at most `instances` live instances at a time.
///
/// Fuel alone bounds a guest: it is exact, and it is checked at loop heads and calls, where the guest also yields. Bulk instructions cost a unit per
/// byte, so that they cannot escape it. Interruption by epochs on top would cost another third in tight loops and add nothing.
pub(super) fn make_engine(instances: u32) -> wasmtime::Result<Engine> {
    let mut config = base_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    match Engine::new(&config) {
        Ok(engine) => {
            tracing::debug!(instances, "instances come from a pool");
            Ok(engine)
        }
        Err(error) => {
            // The pool reserves address space, which a limit on the process may forbid.
            tracing::warn!("instances are allocated one by one, which is slower, since the pool cannot be made: {error:#}");
            Engine::new(&base_config())
        }
    }
}

pub(super) fn base_config() -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .concurrency_support(false)
        .max_wasm_stack(512 << 10)
        .async_stack_size(2 << 20)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .wasm_backtrace_max_frames(Some(STACK_FRAMES_MAX))
        .wasm_memory64(false)
        // What passes texts between components of a component needs it, also where nothing is ever passed. An instance has one memory nevertheless (`limiter.rs`).
        .wasm_multi_memory(true)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false)
        .wasm_gc(false)
        // By its flag: the method is only there with garbage collection. A fault of call_ref once let fuel be evaded (RUSTSEC-2026-0315).
        .wasm_features(WasmFeatures::FUNCTION_REFERENCES, false)
        .wasm_wide_arithmetic(false);
    config
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(TABLES_PER_COMPONENT))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(MEMORY_MAX_BYTES)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}
