/**
 * One writer at a time. A lock is a file that names its holder; it outlives a holder that was killed, so the next
 * process must be able to take it over, and of two that try at the same moment only one may succeed.
 *
 * Replacing a stale file is where such schemes usually break: between looking at it and replacing it, another process
 * may have done the same. Here a stale lock is never replaced by those who want it. They claim its *succession*: the file
 * `<path>.<run of the stale holder>` can be created by only one process, and `run` is never used twice. The holder is
 * the end of the chain lock -> successor -> successor. Who has created a claim and finds himself at the end of the chain
 * holds the lock, alone; he then moves his own record over the stale file, which shortens the chain to one again. A
 * process that looked too early and creates a claim behind a holder that is long gone does not find itself in the chain.
 */
import { randomUUID } from 'node:crypto'
import {
  closeSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeSync
} from 'node:fs'
import { hostname } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { L3capError, messageOf } from '../core/errors.ts'
import { isoMs } from '../core/time.ts'
import { readSmall } from './reader.ts'

/** Who holds a lock, as its file says in JSON. */
export interface LockOwner {
  readonly pid: number
  readonly host: string
  /** Start of the process in clock ticks since boot (Linux), as text; null where the system does not tell. */
  readonly startTicks: string | null
  /** The boot of the system (Linux), as pid and ticks may repeat after the next one; else null. */
  readonly boot: string | null
  /** A UUID of this acquisition. */
  readonly run: string
  readonly command: string
  /** ISO 8601 UTC. */
  readonly since: string
}

/** A lock that is held until `release`, which may be called more than once and never throws for a lock already gone. */
export interface Lock {
  readonly path: string
  release(): void
}

/** `what` names the locked thing in the message of a refusal; the path when missing. */
export interface LockOptions {
  readonly command: string
  readonly nowMs: number
  readonly what?: string
}

interface Found {
  readonly path: string
  /** Names the succession: the run, or for a damaged file what makes it unique. */
  readonly id: string
  readonly owner: LockOwner | undefined
  readonly mtimeMs: number
}

const ATTEMPTS_MAX = 100
const CHAIN_MAX = 1000
/** How long a file without readable content may be one that is just being written. */
const DAMAGED_AFTER_MS = 10_000
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
/** What follows the name of the lock in claims and temporary files. */
const LEFTOVER = /^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(\.tmp)?|damaged-\d+-\d+)$/
/** The runs held by this process: where no start time is told, the own pid alone proves nothing. */
const heldRuns = new Set<string>()

/**
 * Takes the lock, over a dead holder's file too. Creates the directory it stands in.
 * @throws {L3capError} `LOCKED` when another process, or this one, holds it; `VAULT` when the file cannot be written
 */
export function acquireLock(path: string, options: LockOptions): Lock {
  const run = randomUUID()
  const temporary = `${path}.${run}.tmp`
  const owner: LockOwner = {
    pid: process.pid,
    host: hostname(),
    ...processIdentity(process.pid),
    run,
    command: options.command,
    since: isoMs(options.nowMs * 1000)
  }
  const content = `${JSON.stringify(owner)}\n`
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o750 })
    try {
      const held = contend(path, temporary, content, run, options)
      heldRuns.add(run)
      sweep(path, held)
      return { path, release: () => release(held, run) }
    } finally {
      rmSync(temporary, { force: true })
    }
  } catch (error) {
    if (error instanceof L3capError) throw error
    throw new L3capError('VAULT', `cannot write the lock ${path}: ${messageOf(error)}`, { cause: error })
  }
}

/** The live holder of a lock; undefined when it is free or its holder is dead. Changes nothing. */
export function lockHolder(path: string, nowMs: number): LockOwner | undefined {
  const end = chainEnd(path)
  return end && !isStale(end, nowMs) ? (end.owner ?? unknownOwner(end)) : undefined
}

/** Tries until the lock is held or refused; the path at which the own record stands. */
function contend(path: string, temporary: string, content: string, run: string, options: LockOptions): string {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    // A new file each time: a holder that cleans up may have removed it, and what was linked must not change any more.
    rmSync(temporary, { force: true })
    writeSynced(temporary, content)
    if (place(temporary, path, content)) return path
    const end = chainEnd(path)
    if (!end) continue // released in this moment
    if (!isStale(end, options.nowMs)) throw refusal(path, end, options)
    const claim = `${path}.${end.id}`
    if (!place(temporary, claim, content)) continue
    if (chainEnd(path)?.id === run) return shorten(path, claim, temporary)
    rmSync(claim, { force: true })
  }
  throw new L3capError('LOCKED', `${options.what ?? path} is being written by another process: too many want its lock`)
}

/** Moves the own record over the stale one; where that is impossible the claim goes on to be the record. */
function shorten(path: string, claim: string, temporary: string): string {
  try {
    renameSync(temporary, path)
  } catch {
    // Windows refuses while another process reads the stale file. The lock is held all the same.
    return claim
  }
  rmSync(claim, { force: true })
  return path
}

/** Removes what dead contenders left behind. Only the holder may: nobody else's claim can be valid now. */
function sweep(path: string, held: string): void {
  if (held !== path) return
  const prefix = `${basename(path)}.`
  for (const name of readdirSync(dirname(path))) {
    // The lock of an instrument with `.lock` in its name may begin the same way.
    if (!name.startsWith(prefix) || !LEFTOVER.test(name.slice(prefix.length))) continue
    rmSync(join(dirname(path), name), { force: true })
  }
}

function release(held: string, run: string): void {
  heldRuns.delete(run)
  // Somebody may have removed the file by hand, and another process may hold it since.
  if (read(held)?.id === run) rmSync(held, { force: true })
}

/**
 * Creates `target` with the whole content in one step, so that nobody ever reads half a record. False when it is there.
 * Where the file system has no hard links it is created and then written, and an empty file counts as held for a while.
 */
function place(temporary: string, target: string, content: string): boolean {
  try {
    linkSync(temporary, target)
    return true
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'EEXIST') return false
  }
  try {
    writeSynced(target, content)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Throws `EEXIST` when the file is there. */
function writeSynced(path: string, content: string): void {
  const file = openSync(path, 'wx', 0o600)
  try {
    const bytes = Buffer.from(content)
    // A disk that is nearly full may take a part.
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

function chainEnd(path: string): Found | undefined {
  let found = read(path)
  for (let length = 1; found && length < CHAIN_MAX; length += 1) {
    const next = read(`${path}.${found.id}`)
    if (!next) return found
    found = next
  }
  return found
}

function read(path: string): Found | undefined {
  try {
    const stats = lstatSync(path)
    const content = stats.isSymbolicLink() ? readlinkSync(path) : readSmall(path)
    const owner = parseOwner(content)
    const id = owner?.run ?? `damaged-${stats.ino}-${Math.floor(stats.mtimeMs)}`
    return { path, id, owner, mtimeMs: stats.mtimeMs }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

function parseOwner(content: string): LockOwner | undefined {
  try {
    const value = JSON.parse(content) as Partial<Record<keyof LockOwner, unknown>> | null
    if (!value || !Number.isSafeInteger(value.pid) || (value.pid as number) <= 0) return undefined
    const { pid, host, startTicks, boot, run, command, since } = value
    if (typeof host !== 'string' || typeof run !== 'string' || !UUID.test(run)) return undefined
    return {
      pid: pid as number,
      host,
      startTicks: typeof startTicks === 'string' ? startTicks : null,
      boot: typeof boot === 'string' ? boot : null,
      run,
      command: typeof command === 'string' ? command : '',
      since: typeof since === 'string' ? since : ''
    }
  } catch {
    return undefined // cut off by a crash, or not ours
  }
}

function isStale(found: Found, nowMs: number): boolean {
  const { owner } = found
  // Far in the future is as wrong as long ago: the clock may have stepped.
  if (!owner) return Math.abs(nowMs - found.mtimeMs) > DAMAGED_AFTER_MS
  if (owner.host !== hostname()) return false
  const now = processIdentity(owner.pid)
  if (owner.boot !== null && now.boot !== null && owner.boot !== now.boot) return true
  if (!isAlive(owner.pid)) return true
  if (owner.startTicks !== null && now.startTicks !== null) return owner.startTicks !== now.startTicks
  return owner.pid === process.pid && !heldRuns.has(owner.run)
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH' // EPERM: alive, and somebody else's
  }
  // A zombie writes nothing any more; in a container without an init process it may stay for ever.
  return !/^[ZXx]/.test(processStat(pid)?.[0] ?? '')
}

function processIdentity(pid: number): { startTicks: string | null; boot: string | null } {
  return {
    startTicks: processStat(pid)?.[19] ?? null,
    boot: readSystem('/proc/sys/kernel/random/boot_id')?.trim() ?? null
  }
}

/** The fields of `/proc/<pid>/stat` from the third (the state) on: the second may hold spaces and brackets. */
function processStat(pid: number): string[] | undefined {
  const text = readSystem(`/proc/${pid}/stat`)
  return text?.slice(text.lastIndexOf(')') + 2).split(' ')
}

function readSystem(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined // not Linux, or no such process
  }
}

function unknownOwner(found: Found): LockOwner {
  const since = isoMs(Math.floor(found.mtimeMs) * 1000)
  return { pid: 0, host: hostname(), startTicks: null, boot: null, run: found.id, command: '', since }
}

function refusal(path: string, end: Found, options: LockOptions): L3capError {
  const what = `${options.what ?? path} is being written by another process`
  const { owner } = end
  if (!owner) return new L3capError('LOCKED', `${what}: its lock ${end.path} was begun a moment ago`)
  const who = `pid ${owner.pid} on ${owner.host}, ${owner.command || 'unknown command'}, since ${owner.since}`
  if (owner.host === hostname()) return new L3capError('LOCKED', `${what}: ${who}`)
  const advice = `if that process is dead, delete ${path}: only ${owner.host} can tell`
  return new L3capError('LOCKED', `${what}: ${who}; ${advice}`)
}
