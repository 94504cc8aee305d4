// Makes the file system misbehave for the files below one directory. It is loaded into a program before anything else:
//   NODE_OPTIONS="--require <absolute path of this file>" FAULT_DISK='{"root":"/tmp/x/vault","rules":[…]}'
//
// FAULT_DISK is JSON:
//   root       the directory it concerns; calls on other paths and on descriptors opened elsewhere pass untouched
//   rules      what goes wrong, see below; every rule that fits a call takes effect
//   seed       of the lengths of short writes and of `chance`
//   counts     a file outside root that gets, at exit, how many calls of each kind there were
//   journal    a file outside root that gets one line of JSON for each effect on the disk, see powercut.ts
//   graveyard  a directory on the same file system that keeps, by inode number, what was deleted or replaced
//
// A rule: `kind` (open, write, fsync, fdatasync, sync for both, rename, unlink, mkdir, rmdir, link, close, truncate, any),
// `path` (a regular expression for a part of the path), which calls: `from`/`to` (counted from 1 among those that fit the
// rule), `afterMs`/`untilMs` (since the start of the process), `whileFile` (as long as that file exists), `chance` (0 to 1);
// and what happens to them: `code` (the error), `short` (a write takes only a part), `shortFirst` (the first one that fits
// takes a part, the others fail with `code`), `stallMs` (the answer comes late; synchronous calls block), `kill` (`before` or
// `after`: the process kills itself there).
'use strict'
const fs = require('node:fs')
const module_ = require('node:module')
const path = require('node:path')
const { isMainThread } = require('node:worker_threads')

const real = { ...fs }
const ERRNO = { EIO: -5, ENOSPC: -28, EROFS: -30, EACCES: -13, EMFILE: -24, EPERM: -1, EDQUOT: -122 }
const MEANING = {
  EIO: 'i/o error',
  ENOSPC: 'no space left on device',
  EROFS: 'read-only file system',
  EACCES: 'permission denied',
  EMFILE: 'too many open files',
  EPERM: 'operation not permitted',
  EDQUOT: 'disk quota exceeded'
}
const config = JSON.parse(process.env.FAULT_DISK || '{}')
const root = config.root === undefined ? undefined : path.resolve(config.root)
const rules = (config.rules || []).map(rule => ({
  ...rule,
  pattern: rule.path === undefined ? undefined : new RegExp(rule.path),
  seen: 0,
  hit: 0
}))
const counts = {}
/** The paths of the descriptors that are open below root. */
const descriptors = new Map()
let state = (config.seed || 1) >>> 0

function random() {
  state = (state + 0x6d2b79f5) | 0
  let mixed = Math.imul(state ^ (state >>> 15), state | 1)
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
}

function inside(name) {
  if (name === undefined || root === undefined) return undefined
  const full = path.resolve(Buffer.isBuffer(name) ? name.toString() : String(name))
  return full === root || full.startsWith(root + path.sep) ? full : undefined
}

function fits(rule, kind, name) {
  if (rule.kind !== 'any' && rule.kind !== kind && !(rule.kind === 'sync' && /^f(data)?sync$/.test(kind))) return false
  if (rule.pattern && !rule.pattern.test(name)) return false
  const ms = performance.now()
  if (rule.afterMs !== undefined && ms < rule.afterMs) return false
  if (rule.untilMs !== undefined && ms >= rule.untilMs) return false
  if (rule.whileFile !== undefined && !real.existsSync(rule.whileFile)) return false
  rule.seen++
  if (rule.from !== undefined && rule.seen < rule.from) return false
  if (rule.to !== undefined && rule.seen > rule.to) return false
  return rule.chance === undefined || random() < rule.chance
}

/** What shall happen to a call. */
function judge(kind, name) {
  counts[kind] = (counts[kind] || 0) + 1
  counts.any = (counts.any || 0) + 1
  const verdict = { code: undefined, short: false, stallMs: 0, before: false, after: false }
  for (const rule of rules) {
    if (!fits(rule, kind, name)) continue
    rule.hit++
    const takesPart = rule.short || (rule.shortFirst && rule.hit === 1 && kind === 'write')
    if (takesPart) verdict.short = true
    else if (rule.code) verdict.code = rule.code
    if (rule.stallMs) verdict.stallMs = Math.max(verdict.stallMs, rule.stallMs)
    if (rule.kill === 'before') verdict.before = true
    if (rule.kill === 'after') verdict.after = true
  }
  return verdict
}

function die() {
  process.kill(process.pid, 'SIGKILL')
  for (;;) block(1000)
}

function block(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

function failure(code, call, name) {
  const error = new Error(`${code}: ${MEANING[code] || 'failed'}, ${call}${name ? ` '${name}'` : ''}`)
  return Object.assign(error, { code, errno: ERRNO[code], syscall: call, ...(name ? { path: name } : {}) })
}

/** The first part of a write, of at least one byte where there are two; undefined when it cannot be halved. */
function part(length) {
  return length < 2 ? undefined : 1 + Math.floor(random() * (length - 1))
}

// The journal: what a power cut would leave is worked out from it afterwards.
const journal = isMainThread && config.journal && root ? real.openSync(config.journal, 'a') : undefined

function note(entry) {
  if (journal !== undefined) real.writeSync(journal, `${JSON.stringify(entry)}\n`)
}

function inodeOf(target) {
  try {
    const stats = typeof target === 'number' ? real.fstatSync(target) : real.lstatSync(target)
    return { ino: stats.ino, size: stats.size, dir: stats.isDirectory() }
  } catch {
    return undefined
  }
}

/** Keeps what a name stood for: until the directory is synced, a power cut brings it back. */
function bury(name) {
  const found = journal !== undefined && config.graveyard ? inodeOf(name) : undefined
  if (!found || found.dir) return
  try {
    real.linkSync(name, path.join(config.graveyard, String(found.ino)))
  } catch (error) {
    if (error.code !== 'EEXIST') throw error
  }
}

if (journal !== undefined) {
  const walk = directory => {
    for (const entry of real.readdirSync(directory, { withFileTypes: true })) {
      const name = path.join(directory, entry.name)
      note({ op: 'base', path: name, ...inodeOf(name) })
      if (entry.isDirectory()) walk(name)
    }
  }
  if (real.existsSync(root)) walk(root)
}

/** What a call changes on the disk, told before and after it. Returns what to do once it has succeeded. */
function watch(kind, name, args) {
  if (journal === undefined) return () => undefined
  switch (kind) {
    case 'open': {
      const known = real.existsSync(name)
      return fd => {
        const found = inodeOf(fd)
        if (!found || found.dir) return
        if (!known) note({ op: 'create', path: name, ...found })
        else if (/w/.test(String(args[1])) && !/x/.test(String(args[1]))) note({ op: 'truncate', ...found })
      }
    }
    case 'write':
      return () => note({ op: 'write', ...inodeOf(args[0]) })
    case 'fsync':
    case 'fdatasync': {
      // Only what was there when it was asked for is safe when it answers.
      const found = inodeOf(args[0])
      return () => note({ op: 'sync', path: name, ...found })
    }
    case 'truncate':
      return () => note({ op: 'truncate', ...inodeOf(args[0]) })
    case 'rename':
      bury(String(args[1]))
      return () => note({ op: 'rename', from: path.resolve(String(args[0])), path: path.resolve(String(args[1])) })
    case 'unlink':
    case 'rmdir':
      bury(name)
      return () => real.existsSync(name) || note({ op: 'unlink', path: name })
    case 'mkdir': {
      // The name of the root itself stands in a directory that is none of ours.
      const missing = []
      for (let at = name; at.length > root.length && !real.existsSync(at); at = path.dirname(at)) missing.unshift(at)
      return () => {
        for (const each of missing) note({ op: 'create', path: each, ...inodeOf(each) })
      }
    }
    case 'link':
      return () => note({ op: 'link', path: path.resolve(String(args[1])), ...inodeOf(String(args[1])) })
    default:
      return () => undefined
  }
}

/** The path that a call concerns, if it lies below root. */
function subjectOf(kind, args) {
  if (typeof args[0] === 'number') return descriptors.get(args[0])
  if (kind === 'rename' || kind === 'link') return inside(args[1]) || inside(args[0])
  return inside(args[0])
}

function shortened(kind, args) {
  if (kind !== 'write') return args
  const [fd, data, offset, length, position] = args
  if (Array.isArray(data)) return args
  if (typeof data === 'string') {
    const bytes = Buffer.from(data, typeof length === 'string' ? length : 'utf8')
    return [fd, bytes, 0, part(bytes.length) ?? bytes.length, typeof offset === 'number' ? offset : null]
  }
  const from = typeof offset === 'number' ? offset : 0
  const whole = typeof length === 'number' ? length : data.byteLength - from
  return [fd, data, from, part(whole) ?? whole, typeof position === 'number' ? position : null]
}

function remember(kind, name, args, result) {
  if (kind === 'open') descriptors.set(result, name)
  if (kind === 'close') descriptors.delete(args[0])
}

function wrapSync(name, kind) {
  const original = real[name]
  fs[name] = (...args) => {
    const subject = subjectOf(kind, args)
    if (subject === undefined) return original.apply(fs, args)
    const verdict = judge(kind, subject)
    if (verdict.stallMs > 0) block(verdict.stallMs)
    if (verdict.before) die()
    if (verdict.code) {
      // A close that fails has closed all the same.
      if (kind === 'close') real.closeSync(args[0])
      if (kind === 'close') descriptors.delete(args[0])
      throw failure(verdict.code, kind, subject)
    }
    const told = watch(kind, subject, args)
    const result = original.apply(fs, verdict.short ? shortened(kind, args) : args)
    remember(kind, subject, args, result)
    told(result)
    if (verdict.after) die()
    return result
  }
}

function wrapCallback(name, kind) {
  const original = real[name]
  fs[name] = (...args) => {
    const callback = args.at(-1)
    const subject = subjectOf(kind, args)
    if (subject === undefined || typeof callback !== 'function') return original.apply(fs, args)
    const verdict = judge(kind, subject)
    if (verdict.before) die()
    const answer = (...results) => {
      if (verdict.stallMs > 0) setTimeout(() => callback(...results), verdict.stallMs)
      else callback(...results)
    }
    if (verdict.code) {
      const fail = () => answer(failure(verdict.code, kind, subject))
      if (kind !== 'close') return void setImmediate(fail)
      descriptors.delete(args[0])
      return original.call(fs, args[0], fail)
    }
    const told = watch(kind, subject, args)
    const passed = verdict.short ? shortened(kind, args.slice(0, -1)) : args.slice(0, -1)
    original.call(fs, ...passed, (error, ...results) => {
      if (!error) {
        remember(kind, subject, args, results[0])
        told(results[0])
        if (verdict.after) die()
      }
      // A shortened text was handed over as bytes: who wrote it hears of his own.
      if (kind === 'write' && !error) results[1] = args[1]
      answer(error, ...results)
    })
  }
}

function wrapPromise(name, kind) {
  const original = real.promises[name]
  fs.promises[name] = async (...args) => {
    const subject = subjectOf(kind, args)
    if (subject === undefined) return original.apply(fs.promises, args)
    const verdict = judge(kind, subject)
    if (verdict.before) die()
    if (verdict.stallMs > 0) await new Promise(resolve => setTimeout(resolve, verdict.stallMs))
    if (verdict.code) throw failure(verdict.code, kind, subject)
    const told = watch(kind, subject, args)
    const result = await original.apply(fs.promises, args)
    if (kind === 'open') wrapHandle(result, subject)
    told(kind === 'open' ? result.fd : result)
    if (verdict.after) die()
    return result
  }
}

/** The methods of a file handle are the calls of its descriptor. */
function wrapHandle(handle, subject) {
  descriptors.set(handle.fd, subject)
  const calls = {
    write: 'write',
    writev: 'write',
    sync: 'fsync',
    datasync: 'fdatasync',
    truncate: 'truncate',
    close: 'close'
  }
  for (const [name, kind] of Object.entries(calls)) {
    const original = handle[name]
    handle[name] = async (...args) => {
      const { fd } = handle
      const verdict = judge(kind, subject)
      if (verdict.before) die()
      if (verdict.stallMs > 0) await new Promise(resolve => setTimeout(resolve, verdict.stallMs))
      if (verdict.code && kind !== 'close') throw failure(verdict.code, kind, subject)
      const told = watch(kind, subject, [fd, ...args])
      const passed = verdict.short && name === 'write' ? shortened(kind, [fd, ...args]).slice(1) : args
      if (kind === 'close') descriptors.delete(fd)
      const result = await original.apply(handle, passed)
      if (verdict.code) throw failure(verdict.code, kind, subject)
      told(result)
      if (verdict.after) die()
      return result
    }
  }
}

const CALLS = {
  open: 'open',
  write: 'write',
  writev: 'write',
  fsync: 'fsync',
  fdatasync: 'fdatasync',
  rename: 'rename',
  unlink: 'unlink',
  rm: 'unlink',
  mkdir: 'mkdir',
  rmdir: 'rmdir',
  link: 'link',
  close: 'close',
  ftruncate: 'truncate',
  truncate: 'truncate'
}

if (root !== undefined && isMainThread) {
  for (const [name, kind] of Object.entries(CALLS)) {
    wrapSync(`${name}Sync`, kind)
    wrapCallback(name, kind)
    if (real.promises[name]) wrapPromise(name, kind)
  }
  // `rm` deletes what it finds; of what is not there nothing is heard.
  const { rmSync } = fs
  fs.rmSync = (name, options) => {
    if (options?.force && !real.existsSync(name)) return undefined
    return rmSync.call(fs, name, options)
  }
  // Some versions of Node write whole texts past the calls above.
  fs.writeFileSync = (target, data, options) => {
    if (inside(target) === undefined) return real.writeFileSync(target, data, options)
    const { flag = 'w', mode = 0o666 } = typeof options === 'object' && options !== null ? options : {}
    const file = fs.openSync(target, flag, mode)
    try {
      const bytes = Buffer.from(data)
      for (let at = 0; at < bytes.length; ) at += fs.writeSync(file, bytes, at)
    } finally {
      fs.closeSync(file)
    }
  }
  module_.syncBuiltinESMExports()
  if (config.counts) process.on('exit', () => real.writeFileSync(config.counts, JSON.stringify(counts)))
}
