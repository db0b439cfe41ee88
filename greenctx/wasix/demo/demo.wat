;; The sieve of Eratosthenes as a line of contexts. Each context is a call stack of its own that keeps one prime in a
;; local variable. Main sends the numbers 2, 3, 4 ... down the line: a context that can divide the number by its prime
;; drops it (switches to main), any other one passes it on (switches to the next context). The last one in line creates
;; a new context for it, since what comes through the whole line is prime.
;;
;; Run it with: greenctx demo
(module
  (import "wasix_32v1" "context_create" (func $context_create (param $id i32) (param $entrypoint i32) (result i32)))
  (import "wasix_32v1" "context_switch" (func $context_switch (param $id i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $iovecs i32) (param $count i32) (param $written i32) (result i32)))

  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 2 funcref)
  (elem (i32.const 1) $sieve)

  ;; 0: id of the context that was created last (u64). 8: iovec. 16: bytes written. 32-63: a number as text.
  (data (i32.const 64) "main sends the numbers from 2 to 60 down the line\n")
  (data (i32.const 128) "  context ")
  (data (i32.const 144) " holds prime ")
  (data (i32.const 160) "\n")
  (data (i32.const 176) " switches between ")
  (data (i32.const 208) " contexts and main; main returns, and they are destroyed where they wait\n")

  (global $number (mut i32) (i32.const 0))    ;; the number to pass on
  (global $contexts (mut i32) (i32.const 0))
  (global $switches (mut i32) (i32.const 0))

  ;; The entrypoint of every context: it must never return.
  (func $sieve (local $prime i32) (local $next i64)
    (local.set $prime (global.get $number))
    (call $print (i32.const 128) (i32.const 10))
    (call $print_number (global.get $contexts))
    (call $print (i32.const 144) (i32.const 13))
    (call $print_number (local.get $prime))
    (call $print (i32.const 160) (i32.const 1))
    (loop $forever
      (if (i32.rem_u (global.get $number) (local.get $prime))
        (then
          (if (i64.eqz (local.get $next)) (then (local.set $next (call $create))))
          (call $switch (local.get $next)))
        (else (call $switch (i64.const 0))))
      ;; Resumed: there is another number.
      (br $forever)))

  (func (export "_start") (local $first i64)
    (call $print (i32.const 64) (i32.const 50))
    (local.set $first (call $create))
    (global.set $number (i32.const 2))
    (loop $numbers
      (call $switch (local.get $first))
      (global.set $number (i32.add (global.get $number) (i32.const 1)))
      (br_if $numbers (i32.le_u (global.get $number) (i32.const 60))))
    (call $print_number (global.get $switches))
    (call $print (i32.const 176) (i32.const 18))
    (call $print_number (global.get $contexts))
    (call $print (i32.const 208) (i32.const 73)))

  (func $create (result i64)
    (if (call $context_create (i32.const 0) (i32.const 1)) (then unreachable))
    (global.set $contexts (i32.add (global.get $contexts) (i32.const 1)))
    (i64.load (i32.const 0)))

  (func $switch (param $id i64)
    (global.set $switches (i32.add (global.get $switches) (i32.const 1)))
    (if (call $context_switch (local.get $id)) (then unreachable)))

  (func $print (param $text i32) (param $length i32)
    (i32.store (i32.const 8) (local.get $text))
    (i32.store (i32.const 12) (local.get $length))
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16))))

  (func $print_number (param $rest i32) (local $digit i32)
    (local.set $digit (i32.const 64))
    (loop $digits
      (local.set $digit (i32.sub (local.get $digit) (i32.const 1)))
      (i32.store8 (local.get $digit) (i32.add (i32.const 48) (i32.rem_u (local.get $rest) (i32.const 10))))
      (local.set $rest (i32.div_u (local.get $rest) (i32.const 10)))
      (br_if $digits (local.get $rest)))
    (call $print (local.get $digit) (i32.sub (i32.const 64) (local.get $digit)))))
