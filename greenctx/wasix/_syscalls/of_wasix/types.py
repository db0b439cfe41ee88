"""All of WASIX's functions and their types, those of earlier versions included: facts only.

Sources: the bindings of wasix-org/wasix-abi-rust, ``src/lib_generated32.rs`` and ``lib_generated64.rs``, in all of
their versions from May 2022 (49a6d44) to October 2025 (92534c0); for the calls that these leave out, such as
context_create, wasix-org/wasix-libc and the ``lib/wasix/src/lib.rs`` of wasmerio/wasmer.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from greenctx.wasix._modules.abi import WASIX_MODULE, WASIX_MODULE_64

if TYPE_CHECKING:
    from collections.abc import Mapping

_POINTERS = {WASIX_MODULE: "i32", WASIX_MODULE_64: "i64"}
"""The type of a pointer or a size, by import module."""


def pointers_as(module: str, ty: str) -> str:
    """Return a type, in which ``p`` stands for a pointer or a size, as that module has it."""
    return " ".join(_POINTERS[module] if part == "p" else part for part in ty.split())


@cache
def wasix_types(module: str) -> Mapping[str, frozenset[str]]:
    """Return the types of each function of a WASIX module, such as "i32 i64 -> i32"."""
    types: dict[str, frozenset[str]] = {}
    for line in _TABLE.strip().splitlines():
        name, _, those = line.partition(" ")
        types[name] = types.get(name, frozenset()) | {
            pointers_as(module, ty.replace("!", "")) for ty in those.split("|")
        }
    return types


_TABLE = """
args_get                      p p -> i32
args_sizes_get                p p -> i32
bus_call                      i32 i32 p p i32 p p p -> i32 | i32 i32 p i32 p p p -> i32
bus_call                      i32 p i32 p p p -> i32
bus_callback                  i32 p p i32 p p -> i32
bus_close                     i32 -> i32
bus_drop                      i32 -> i32
bus_fault                     i32 i32 -> i32
bus_invoke                    i32 p i32 p p i32 p p p -> i32
bus_listen                    p p p -> i32
bus_open_local                p p i32 p -> i32
bus_open_remote               p p i32 p p p p p -> i32
bus_poll                      p i64 p i32 p -> i32 | p i64 p p p -> i32 | i64 p i32 p p p -> i32
bus_poll                      i64 p p i32 p -> i32 | i64 p p p p -> i32 | i64 p i32 p -> i32
bus_poll_data                 p i64 p p p p p -> i32
bus_reply                     i32 i32 p p -> i32
bus_spawn_local               p p i32 p p p p i32 i32 i32 p p p -> i32
bus_spawn_remote              p p i32 p p p p p p i32 i32 i32 p p p p p -> i32
bus_subcall                   i32 i32 p p i32 p p p -> i32 | p i32 p p i32 p p p -> i32
bus_subcall                   i64 i32 p p i32 p p p -> i32 | i64 i32 p i32 p p p -> i32
bus_subcall                   i64 p i32 p p p -> i32
call_close                    i32 -> | p -> | i64 ->
call_dynamic                  p p p p p i32 -> i32
call_fault                    i32 i32 -> | p i32 -> | i64 i32 ->
call_reply                    i32 i32 p p -> i32 | p i32 p p -> i32 | i64 i32 p p -> i32
callback_reactor              p p ->
callback_signal               p p ->
callback_thread               p p ->
callback_thread_local_destroy p p ->
callback_wake                 p p ->
callback_waker_drop           p p ->
callback_waker_wake           p p ->
chdir                         p p -> i32
clock_res_get                 i32 p -> i32
clock_time_get                i32 i64 p -> i32
clock_time_set                i32 i64 -> i32
closure_allocate              p -> i32
closure_free                  p -> i32
closure_prepare               p p p p p p p -> i32
context_create                p i32 -> i32
context_destroy               i64 -> i32
context_switch                i64 -> i32
dl_invalid_handle             i32 -> i32
dlopen                        p p i32 p i32 p p p -> i32
dlsym                         i32 p p p i32 p -> i32
environ_get                   p p -> i32
environ_sizes_get             p p -> i32
epoll_create                  p -> i32
epoll_ctl                     i32 i32 i32 p -> i32
epoll_wait                    i32 p i32 i64 p -> i32
fd_advise                     i32 i64 i64 i32 -> i32
fd_allocate                   i32 i64 i64 -> i32
fd_close                      i32 -> i32
fd_datasync                   i32 -> i32
fd_dup                        i32 p -> i32
fd_dup2                       i32 i32 i32 p -> i32
fd_event                      i32 p -> i32 | i64 i32 p -> i32
fd_fdflags_get                i32 p -> i32
fd_fdflags_set                i32 i32 -> i32
fd_fdstat_get                 i32 p -> i32
fd_fdstat_set_flags           i32 i32 -> i32
fd_fdstat_set_rights          i32 i64 i64 -> i32
fd_filestat_get               i32 p -> i32
fd_filestat_set_size          i32 i64 -> i32
fd_filestat_set_times         i32 i64 i64 i32 -> i32
fd_isatty                     i32 p -> i32
fd_pipe                       p p -> i32
fd_pread                      i32 p p i64 p -> i32
fd_pread_poll                 i32 p p i64 i64 p -> i32
fd_prestat_dir_name           i32 p p -> i32
fd_prestat_get                i32 p -> i32
fd_pwrite                     i32 p p i64 p -> i32
fd_pwrite_poll                i32 p p i64 i64 p -> i32
fd_read                       i32 p p p -> i32
fd_read_poll                  i32 p p i64 p -> i32
fd_readdir                    i32 p p i64 p -> i32
fd_renumber                   i32 i32 -> i32
fd_seek                       i32 i64 i32 p -> i32
fd_sync                       i32 -> i32
fd_tell                       i32 p -> i32
fd_write                      i32 p p p -> i32
fd_write_poll                 i32 p p i64 p -> i32
fork                          p -> i32
futex_wait                    p i32 p p -> i32
futex_wait_poll               p i32 p i64 p -> i32
futex_wake                    p p -> i32
futex_wake_all                p p -> i32
getcwd                        p p -> i32
getpid                        p -> i32
getppid                       i32 p -> i32
http_request                  p p p p p p i32 p -> i32
http_status                   i32 p p p p p -> i32 | i32 p -> | i32 p -> i32
kill                          i32 -> i32
path_create_directory         i32 p p -> i32
path_filestat_get             i32 i32 p p p -> i32
path_filestat_set_times       i32 i32 p p i64 i64 i32 -> i32
path_link                     i32 i32 p p i32 p p -> i32
path_open                     i32 i32 p p i32 i64 i64 i32 p -> i32
path_open2                    i32 i32 p p i32 i64 i64 i32 i32 p -> i32
path_readlink                 i32 p p p p p -> i32
path_remove_directory         i32 p p -> i32
path_rename                   i32 p p i32 p p -> i32
path_symlink                  p p i32 p p -> i32
path_unlink_file              i32 p p -> i32
pipe                          p p -> i32
poll_oneoff                   p p i32 p -> i32
port_addr_add                 p -> i32
port_addr_clear               -> i32
port_addr_list                p p -> i32
port_addr_remove              p -> i32
port_bridge                   p p p p i32 -> i32
port_dhcp_acquire             -> i32
port_gateway_set              p -> i32
port_ip_add                   p -> i32
port_ip_clear                 -> i32
port_ip_list                  p p -> i32
port_ip_remove                p -> i32
port_mac                      p -> i32
port_route_add                p p p p -> i32
port_route_clear              -> i32
port_route_list               p p -> i32
port_route_remove             p -> i32
port_unbridge                 -> i32
proc_exec                     p p p p -> !
proc_exec2                    p p p p p p -> !
proc_exec3                    p p p p p p i32 p p -> i32
proc_exit                     i32 -> !
proc_exit2                    i32 -> !
proc_fork                     p -> i32 | i32 p -> i32
proc_fork_env                 p -> i32
proc_id                       p -> i32
proc_join                     i32 p -> i32 | p p -> i32 | p i32 p -> i32
proc_join_poll                p i32 i64 p -> i32
proc_parent                   i32 p -> i32
proc_raise                    i32 -> i32
proc_raise_interval           i32 i64 i32 -> i32
proc_signal                   i32 i32 -> i32
proc_signals_get              p -> i32
proc_signals_sizes_get        p -> i32
proc_snapshot                 -> i32
proc_spawn                    p p i32 p p p p i32 i32 i32 p p p -> i32
proc_spawn2                   p p p p p p p p p p i32 p p p -> i32
process_signal                i32 i32 -> i32
process_spawn                 p p i32 p p p p i32 i32 i32 p p p -> i32
random_get                    p p -> i32
reflect_signature             p p i32 p i32 p -> i32
resolve                       p p i32 p i32 p -> i32
sched_yield                   -> i32
signal                        i32 i32 -> i32
sock_accept                   i32 i32 p p -> i32
sock_accept_poll              i32 i32 i64 p p -> i32
sock_accept_ready_poll        i32 i64 p -> i32
sock_accept_v2                i32 i32 p p -> i32
sock_addr_local               i32 p -> i32
sock_addr_peer                i32 p -> i32
sock_bind                     i32 p -> i32
sock_connect                  i32 p -> i32
sock_get_opt_flag             i32 i32 p -> i32
sock_get_opt_size             i32 i32 p -> i32
sock_get_opt_time             i32 i32 p -> i32
sock_join_multicast_v4        i32 p p -> i32
sock_join_multicast_v6        i32 p i32 -> i32
sock_leave_multicast_v4       i32 p p -> i32
sock_leave_multicast_v6       i32 p i32 -> i32
sock_listen                   i32 i32 -> i32
sock_open                     i32 i32 i32 p -> i32
sock_pair                     i32 i32 i32 p p -> i32
sock_recv                     i32 p p i32 p p -> i32
sock_recv_from                i32 p p i32 p p p -> i32
sock_recv_from_poll           i32 p p i32 i64 p p p -> i32
sock_recv_poll                i32 p p i32 i64 p p -> i32
sock_recv_ready_poll          i32 i64 p -> i32
sock_send                     i32 p p i32 p -> i32
sock_send_file                i32 i32 i64 i64 p -> i32
sock_send_poll                i32 p p i32 i64 p -> i32
sock_send_ready_poll          i32 i64 p -> i32
sock_send_to                  i32 p p i32 p p -> i32
sock_send_to_poll             i32 p p i32 p i64 p -> i32
sock_set_opt_flag             i32 i32 i32 -> i32
sock_set_opt_size             i32 i32 i64 -> i32
sock_set_opt_time             i32 i32 p -> i32
sock_shutdown                 i32 i32 -> i32
sock_status                   i32 p -> i32
stack_checkpoint              p i64 -> i64 | p i64 p -> i32 | p p -> i32
stack_forget                  p -> | i64 ->
stack_restore                 i64 -> i64 | p -> ! | p -> i64 | p i64 -> !
stack_save                    p -> | -> i64 | p i32 i64 -> i64
thread_exit                   i32 -> !
thread_id                     p -> i32
thread_join                   i32 -> i32
thread_join_poll              i32 i64 -> i32
thread_local_create           i64 p -> i32
thread_local_destroy          i32 -> i32 | i64 i32 -> i32
thread_local_get              i32 p -> i32
thread_local_set              i32 i64 -> i32
thread_parallelism            p -> i32
thread_signal                 i32 i32 -> i32
thread_sleep                  i64 -> i32
thread_sleep_poll             i64 i64 -> i32
thread_spawn                  p p i64 i32 p -> i32 | p p p p i64 i32 p -> i32 | i64 i32 p -> i32
thread_spawn                  i64 i64 i32 p -> i32 | i64 i64 i64 i32 p -> i32 | p p -> i32
thread_spawn_v2               p p -> i32
tty_get                       p -> i32
tty_set                       p -> i32
ws_connect                    p p p -> i32
"""
"""Each line has a function and its types. ``p`` is a pointer or a size, ``-> !`` a function that does not return."""
