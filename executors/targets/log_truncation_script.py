"""What runs in a container: fixed POSIX sh, with everything that varies passed as its arguments, never put into it.

It needs ``find``, ``stat``, ``dd``, ``head``, ``tail``, ``wc``, ``cksum``, ``df`` and ``readlink``, as busybox and
coreutils have them, and /proc; with ``gzip`` it keeps more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from executors.targets.log_truncation import Entry, FileNow, freed_in_words, kept_in_words
from pipeline.domain.action import LogFile
from pipeline.domain.errors import OutcomeUnknown, PermanentError, PreconditionFailed, SreBotError, TemporaryError

# Exit status 40: the file is not what the plan was made for; 41: it cannot be done there; 42: not now. After each of
# the three nothing was emptied.

LIST = r"""
for tool in find stat dd cksum; do
  command -v "$tool" >/dev/null 2>&1 || { echo "there is no $tool in the container" >&2; exit 41; }
done
for root in "$@"; do
  [ -d "$root" ] || continue
  find "$root" -xdev -maxdepth 3 -type f -size +0 \
    \( -name '*.log' -o -name '*.out' -o -name '*.err' -o -name '*.log.[0-9]*' \) \
    -exec stat -c '%d:%i %s %h %n' {} + 2>/dev/null
done | head -n 2000
exit 0
"""
"""Arguments: the allowed folders. Prints ``device:inode size names path`` a line."""

_COMMON = r"""
LC_ALL=C; export LC_ALL
umask 077
stop() { code=$1; shift; printf '%s\n' "$*" >&2; exit "$code"; }
prefix=$1; file=$2; inode=$3; planned=$4; execution=$5; step=$6
dir=${file%/*}
lock=$dir/.sre-bot.lock
journal=$dir/.sre-bot.journal
spare=/tmp/.sre-bot.journal
record() { cat "$journal" "$spare" 2>/dev/null; }
inside=${dir#"$prefix"}
[ "$prefix$inside" = "$dir" ] || stop 41 "$file is not below $prefix"
top=$(cd -P -- "$prefix" 2>/dev/null && pwd -P) || stop 40 "$prefix is gone"
real=$(cd -P -- "$dir" 2>/dev/null && pwd -P) || stop 40 "$dir is gone"
[ "$top$inside" = "$real" ] || stop 40 "$dir leads out of $prefix by a symbolic link"
head_of() { dd if="$1" bs="$2" count=1 2>/dev/null | cksum | { read -r sum rest; printf '%s' "$sum"; }; }
at_work() { holder=$(readlink "$lock" 2>/dev/null) && [ -d "/proc/$holder" ]; }
"""

LOOK = (
    _COMMON
    + r"""
if at_work; then echo "lock $holder"; fi
record | while read -r phase e s fence i p size count sum rest; do
  [ "$i $p" = "$inode $planned" ] && echo "entry $phase $e $s $fence $p $size $count $sum"
done
bytes=$(record | while read -r phase e s fence i p size count rest; do
  [ "$e $s $i $p" = "$execution $step $inode $planned" ] && echo "$count"
done | tail -n 1)
sum=-
if [ -n "$bytes" ]; then sum=$(head_of "$file" "$bytes"); fi
echo "file $(stat -c '%d:%i %s' "$file" 2>/dev/null || echo '- 0') $sum"
"""
)
"""Arguments: folder, file, device:inode, planned size, execution, step.

Prints ``lock PID`` while somebody is at work, an ``entry`` line for each one of the record about this file, and
``file device:inode size checksum``, the checksum of as many first bytes as the step's own entry covers; ``- 0`` when it
is gone.
"""

TRUNCATE = (
    _COMMON
    + r"""
fence=$7; stamp=$8; copy_s=$9; whole_s=${10}
started=$(date +%s)
[ ! -L "$file" ] || stop 40 "$file is a symbolic link"
[ -f "$file" ] || stop 40 "$file is gone"
said=$( (exec 3>>"$file") 2>&1 ) || stop 41 "${said:-$file cannot be opened for writing}"
exec 3>>"$file"
log=/proc/$$/fd/3
[ "$(stat -L -c '%d:%i' "$log")" = "$inode" ] || stop 40 "$file is another file than the one planned: it was rotated"
[ "$(stat -L -c %h "$log")" = 1 ] || stop 40 "$file has a second name elsewhere"
part=
copy=
kept_lock=
tidy() {
  if [ -n "$part" ]; then rm -f "$part" "$part".[0-9]*; fi
  if [ -n "$copy" ]; then rm -f "$copy"; fi
  if [ -n "$kept_lock" ]; then rm -f "$lock"; fi
}
trap tidy EXIT
trap 'exit 42' HUP INT TERM
if ! said=$(ln -s "$$" "$lock" 2>&1); then
  [ -L "$lock" ] || stop 41 "${said:-$lock cannot be made}"
  if at_work; then stop 42 "process $holder is emptying logs in $dir right now"; fi
  rm -f "$lock"
  ln -s "$$" "$lock" 2>/dev/null || stop 42 "somebody else is emptying logs in $dir right now"
fi
kept_lock=yes
rm -f "$dir/.${file##*/}."*.part "$dir/.${file##*/}."*.part.[0-9]*
record | while read -r phase e s f i p rest; do
  [ "$e $i $p" = "$execution $inode $planned" ] || continue
  [ "$f" -le "$fence" ] || stop 40 "the record of $file bears fence $f, we hold $fence"
  if [ "$phase $s" = "done $step" ]; then stop 40 "$file was emptied by this very step"; fi
done || exit
size=$(stat -L -c %s "$log")
[ "$size" -gt 0 ] && [ "$size" -ge "$planned" ] || stop 40 "$file is smaller than planned: somebody else has emptied it"

if command -v gzip >/dev/null 2>&1; then
  zipped=1; suffix=.gz; stretch=8388608; most=$size
  pack() { gzip -c -3; }
  unpack() { gzip -dc; }
else
  zipped=0; suffix=; stretch=1048576; most=$((size / 8))
  pack() { cat; }
  unpack() { cat; }
  [ "$size" -ge 4194304 ] || stop 41 "there is no gzip in the container, and too little to free without it"
fi
least=1048576
[ "$size" -ge "$least" ] || least=$size
free_in() { df -Pk "$1" | tail -n 1 | { read -r disk blocks used available rest; printf '%s' "${available:-0}"; }; }
at=$dir
free=$(free_in "$dir")
if [ $((free * 1024)) -lt $((size / 2)) ] && [ -w /tmp ] && [ "$(free_in /tmp)" -gt "$free" ]; then
  at=/tmp
  free=$(free_in /tmp)
fi
part=$at/.${file##*/}.$stamp.part
room=$((free * 1024 / 2))
begin=$size; number=0; taken=0; why=all
while [ "$begin" -gt 0 ]; do
  end=$begin
  begin=$(((end - 1) / stretch * stretch))
  number=$((number + 1))
  dd if="$log" bs=1048576 skip=$((begin / 1048576)) count=$((stretch / 1048576)) 2>/dev/null \
    | head -c $((end - begin)) | pack > "$part.$number" 2>/dev/null
  failed=$?
  taken=$((taken + $(wc -c < "$part.$number")))
  if [ "$failed" != 0 ] || [ "$taken" -gt "$room" ]; then
    rm -f "$part.$number"; number=$((number - 1)); begin=$end; why=room
    break
  fi
  if [ "$begin" -gt 0 ] && [ $((size - begin)) -ge "$most" ]; then why=gzip; break; fi
  if [ "$begin" -gt 0 ] && [ $(($(date +%s) - started)) -ge "$copy_s" ]; then why=time; break; fi
done
[ $((size - begin)) -ge "$least" ] \
  || stop 41 "there is no room in $at to keep even the newest lines of $file ($free KiB free): make a little by hand"
while [ "$number" -gt 0 ]; do
  cat "$part.$number" >> "$part" || stop 41 "there is no room in $at for the copy of $file: make a little by hand"
  rm -f "$part.$number"
  number=$((number - 1))
done
if [ "$zipped" = 1 ]; then
  gzip -t < "$part" 2>/dev/null || stop 41 "the copy of $file reads back wrong: look after the disk"
fi
[ "$(unpack < "$part" | wc -c)" -eq $((size - begin)) ] || stop 42 "$file changed while it was copied"
chmod "$(stat -L -c %a "$log")" "$part" 2>/dev/null
copy=$at/${file##*/}.$stamp.sre-bot$suffix
mv "$part" "$copy" || stop 41 "$copy cannot be made"
reaches=$size
go_on() {
  rounds=0
  while [ "$rounds" -lt 5 ]; do
    now=$(stat -L -c %s "$log")
    [ "$now" -gt "$reaches" ] || break
    dd if="$log" bs=1048576 skip=$((reaches / 1048576)) 2>/dev/null | tail -c +$((reaches % 1048576 + 1)) \
      | head -c $((now - reaches)) | pack >> "$copy" || stop 41 "there is no room for the last lines of $file"
    reaches=$now
    rounds=$((rounds + 1))
  done
}
forced() { sync "$1" 2>/dev/null || sync; }
careless=
for fd in /proc/[0-9]*/fd/*; do
  [ "$fd" -ef "$log" ] || continue
  process=${fd#/proc/}; process=${process%%/*}
  [ "$process" != "$$" ] || continue
  flags=$(while read -r name value; do [ "$name" = flags: ] && echo "$value"; done \
    2>/dev/null < "/proc/$process/fdinfo/${fd##*/}")
  if [ -n "$flags" ] && [ $((flags & 3)) != 0 ] && [ $((flags & 02000)) = 0 ]; then careless=$process; fi
done
go_on
forced "$copy"
[ "$(stat -c '%d:%i' "$file" 2>/dev/null)" = "$inode" ] || stop 40 "$file was rotated while it was copied"
bytes=65536
[ "$size" -ge "$bytes" ] || bytes=$size
marks="$execution $step $fence $inode $planned $size $bytes $(head_of "$log" "$bytes")"
[ "$(readlink "$lock")" = "$$" ] || stop 42 "somebody else is emptying logs in $dir right now"
[ $(($(date +%s) - started)) -le "$whole_s" ] || stop 42 "copying $file took too long"
if ! (printf '\nbegan %s\n' "$marks" >> "$journal") 2>/dev/null; then
  journal=$spare
  (printf '\nbegan %s\n' "$marks" >> "$journal") 2>/dev/null || stop 41 "there is no room in $dir for the record"
fi
forced "$journal"
go_on
before=$(stat -L -c '%b %B' "$log")
last=$(stat -L -c %s "$log")
trap '' HUP INT TERM
( : > "$log" ) || stop 41 "$file cannot be emptied"
kept=$copy
copy=
printf '\ndone %s\n' "$marks" >> "$journal"
forced "$journal"
after=$(stat -L -c '%b %B' "$log")
if [ "$(stat -c %d "$kept")" = "$(stat -L -c %d "$log")" ]; then disk=same; else disk=other; fi
echo "emptied $before $after $(stat -c '%b %B' "$kept") $begin $reaches $last $why ${careless:--} $disk $kept"
"""
)
"""Arguments as of LOOK, then fence, time stamp, seconds for the copying, seconds until it may take effect.

Everything is done through one descriptor, so on one inode, whatever becomes of the name. From the emptying on signals
are ignored: 42 would deny it. Prints ``emptied`` and: blocks
and their size of the log before and after and of the copy, the bytes from and up to which there is a copy, the size in
the end, why not all was kept (all, room, time, gzip), a process that does not append (or -), whether the copy is on the
same disk, and where. Copy and record lie beside the log, or in /tmp where there is no room for them and more there.
"""

_WHY_NOT_ALL: Mapping[str, str] = {
    "all": "",
    "room": "there was no room for more",
    "time": "there was no time for more",
    "gzip": "there is no gzip in the container, so that the copy is not compressed",
}


def inode_of(file: LogFile) -> str:
    """``device:inode`` of a file whose uid names its pod first."""
    return file.uid.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Seen:
    """What LOOK says: whether somebody is at work, the record about the file, and the file of that name."""

    busy: bool
    entries: tuple[Entry, ...]
    inode: str
    now: FileNow


def seen(out: str, file: LogFile) -> Seen:
    """Raises TemporaryError for an answer that makes no sense."""
    lines = [line.split() for line in out.splitlines()]
    try:
        entries = tuple(_entry(words[1:], file) for words in lines if words[:1] == ["entry"])
        ((_, inode, size, head),) = [words for words in lines if words[:1] == ["file"]]
        return Seen(any(words[:1] == ["lock"] for words in lines), entries, inode, FileNow(int(size), head))
    except (ValueError, ValidationError) as error:
        raise TemporaryError(f"{file.instance}: the look at {file.path} makes no sense: {out[:200]!r}") from error


def told(out: str, file: LogFile) -> str:
    """What TRUNCATE did, in words. Raises OutcomeUnknown for an answer that makes no sense."""
    try:
        (words,) = [line.split() for line in out.splitlines() if line.startswith("emptied ")]
        before, unit, after, _, took, took_unit, start, reaches, size = (int(word) for word in words[1:10])
        why, careless, disk, copy = words[10:]
    except ValueError as error:
        raise OutcomeUnknown(f"emptying {file.path} in {file.instance} was answered with {out[:200]!r}") from error
    log_bytes, copy_bytes = (before - after) * unit, took * took_unit
    freed = freed_in_words(log_bytes, copy_bytes if disk == "same" else 0)
    kept = kept_in_words(
        kept_bytes=reaches - start,
        size_bytes=reaches,
        copy=copy,
        copy_bytes=copy_bytes,
        why_not_all=_WHY_NOT_ALL.get(why, why),
    )
    said = [f"emptied {file.instance}:{file.path}: {freed}", kept]
    if size > reaches:
        said.append(f"{size - reaches} bytes written in the last moment are not in the copy")
    if careless != "-":
        said.append(
            f"process {careless} does not append: the file will look as large as before, and take up what is new"
        )
    return "; ".join(said)


def refused(status: int, said: str, file: LogFile) -> SreBotError:
    """What an exit status means; any but our own leaves open how far it came."""
    where = f"{file.instance}: {said or f'exit status {status}'}"
    match status:
        case 40:
            return PreconditionFailed(where)
        case 41:
            return PermanentError(where)
        case 42:
            return TemporaryError(where, retry_after_s=1)
        case _:
            return OutcomeUnknown(where)


def _entry(words: list[str], file: LogFile) -> Entry:
    phase, execution, step, fence, planned, size, head_bytes, head = words
    return Entry.model_validate(
        {
            "phase": phase,
            "execution": execution,
            "step": step,
            "fence": fence,
            "path": file.path,
            "uid": file.uid,
            "planned_bytes": planned,
            "size_bytes": size,
            "head_bytes": head_bytes,
            "head": head,
        }
    )
