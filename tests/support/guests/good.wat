;; Main and a context add to a number in turns; it exits with 42 when all went well.
(module
  (import "wasix_32v1" "context_create" (func $context_create (param i32 i32) (result i32)))
  (import "wasix_32v1" "context_switch" (func $context_switch (param i64) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $other))
  (global $number (mut i32) (i32.const 0))
  (func $add_in_turns (param $number i32) (param $partner i64)
    (loop
      (global.set $number (i32.add (global.get $number) (local.get $number)))
      (if (call $context_switch (local.get $partner)) (then unreachable))
      (br_if 0 (i32.lt_u (global.get $number) (i32.const 42)))))
  (func $other (call $add_in_turns (i32.const 4) (i64.const 0)))
  (func (export "_start")
    (if (call $context_create (i32.const 0) (i32.const 0)) (then unreachable))
    (call $add_in_turns (i32.const 3) (i64.load (i32.const 0)))
    (call $exit (global.get $number))))
