import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { acquireLock, type LockOwner, lockHolder } from '../../src/vault/lock.ts'

const links = vi.hoisted(() => ({ refused: false }))
vi.mock('node:fs', async load => {
  const fs = await load<typeof import('node:fs')>()
  const linkSync: typeof fs.linkSync = (...args) => {
    if (links.refused) throw Object.assign(new Error('EPERM: operation not permitted, link'), { code: 'EPERM' })
    fs.linkSync(...args)
  }
  return { ...fs, linkSync }
})

const NOW = Date.UTC(2026, 10, 20, 12, 30)
const OPTIONS = { command: 'l3cap test', nowMs: NOW }
const ROOT = join(import.meta.dirname, '..', '..')
/** A process that has ended; nothing else gets its number so soon. */
const DEAD_PID = spawnSync(process.execPath, ['-e', '']).pid
let compiled: string
let folder: string
let path: string

beforeAll(() => {
  // Contenders are processes of their own, and Node 20 reads no TypeScript.
  compiled = mkdtempSync(join(tmpdir(), 'l3cap-compiled-'))
  writeFileSync(join(compiled, 'package.json'), '{"type":"module"}')
  const flags = '--target es2023 --module nodenext --types node --rewriteRelativeImportExtensions --skipLibCheck'
  const command = [join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '--ignoreConfig', ...flags.split(' ')]
  const places = ['--rootDir', 'src', '--outDir', compiled, join('src', 'vault', 'lock.ts')]
  execFileSync(process.execPath, [...command, ...places], { cwd: ROOT, stdio: 'pipe' })
}, 60_000)
afterAll(() => rmSync(compiled, { recursive: true, force: true }))
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-lock-'))
  path = join(folder, 'meta', 'BTC.lock')
})
afterEach(() => rmSync(folder, { recursive: true }))

function owner(changes: Partial<LockOwner> = {}): LockOwner {
  const run = `00000000-0000-4000-8000-${Math.floor(Math.random() * 1e12)
    .toString(16)
    .padStart(12, '0')}`
  const known = {
    host: hostname(),
    startTicks: null,
    boot: null,
    command: 'earlier',
    since: '2026-11-20T12:00:00.000Z'
  }
  return { pid: DEAD_PID, ...known, run, ...changes }
}

function plant(content: unknown, at = path): void {
  mkdirSync(join(at, '..'), { recursive: true })
  writeFileSync(at, typeof content === 'string' ? content : JSON.stringify(content))
}

function holder(): LockOwner {
  return JSON.parse(readFileSync(path, 'utf8'))
}

function left(): string[] {
  return readdirSync(join(folder, 'meta'))
}

test('a free lock is taken, names its holder, and is gone after the release', () => {
  const lock = acquireLock(path, OPTIONS)
  expect(holder()).toMatchObject({
    pid: process.pid,
    host: hostname(),
    command: 'l3cap test',
    since: '2026-11-20T12:30:00.000Z'
  })
  if (process.platform !== 'win32') expect(statSync(path).mode & 0o777).toBe(0o600)
  expect(left()).toEqual(['BTC.lock'])
  expect(lockHolder(path, NOW)?.pid).toBe(process.pid)
  lock.release()
  lock.release()
  expect(left()).toEqual([])
  expect(lockHolder(path, NOW)).toBeUndefined()
})

test('a held lock is refused with what is known of its holder, in one process too', () => {
  acquireLock(path, OPTIONS)
  const refused = () => acquireLock(path, { ...OPTIONS, what: 'okx BTC' })
  const message = `okx BTC is being written by another process: pid ${process.pid} on ${hostname()}, l3cap test`
  expect(refused).toThrow(
    expect.objectContaining({ code: 'LOCKED', exit: 3, message: expect.stringContaining(message) })
  )
  expect(left()).toEqual(['BTC.lock'])
})

test('the lock of a dead process is taken over', () => {
  plant(owner())
  expect(lockHolder(path, NOW)).toBeUndefined()
  acquireLock(path, OPTIONS)
  expect(holder().pid).toBe(process.pid)
  expect(left()).toEqual(['BTC.lock'])
})

test.runIf(process.platform === 'linux')(
  'so is that of an earlier process with a number in use again, or of an earlier boot',
  () => {
    acquireLock(path, OPTIONS)
    const now = holder()
    plant({ ...now, startTicks: '1' })
    acquireLock(path, OPTIONS)
    plant({ ...now, boot: 'another' })
    acquireLock(path, OPTIONS)
    plant({ ...now, pid: process.ppid })
    acquireLock(path, OPTIONS)
    plant(now)
    expect(() => acquireLock(path, OPTIONS)).toThrow('is being written by another process')
  }
)

test('a live process is believed where its start is not told; the own number alone proves nothing', () => {
  plant(owner({ pid: process.ppid }))
  expect(() => acquireLock(path, OPTIONS)).toThrow('is being written by another process')
  plant(owner({ pid: process.pid }))
  acquireLock(path, OPTIONS)
})

test('the lock of another host is refused with advice', () => {
  plant(owner({ host: 'elsewhere' }))
  expect(() => acquireLock(path, OPTIONS)).toThrow(
    /is being written by another process.*on elsewhere.*delete .*BTC\.lock/
  )
})

test.each(['', '{"pid":', 'null', '[]', '{"pid":-1}', '{"pid":1,"host":"x","run":"../../x"}'])(
  'a damaged lock (%j) counts for 10 s only',
  content => {
    plant(content)
    utimesSync(path, NOW / 1000 - 5, NOW / 1000 - 5)
    expect(() => acquireLock(path, OPTIONS)).toThrow('is being written by another process')
    expect(lockHolder(path, NOW)).toBeDefined()
    utimesSync(path, NOW / 1000 - 11, NOW / 1000 - 11)
    acquireLock(path, OPTIONS)
    expect(holder().pid).toBe(process.pid)
    expect(left()).toEqual(['BTC.lock'])
  }
)

test('a contender that died while taking over does not stand in the way; its leftovers go, those of others stay', () => {
  const [first, second] = [owner(), owner()]
  plant(first)
  plant(second, `${path}.${first.run}`)
  plant('{"pid"', `${path}.${second.run}.tmp`)
  plant('{}', `${path}.lock`)
  acquireLock(path, OPTIONS)
  expect(left()).toEqual(['BTC.lock', 'BTC.lock.lock'])
  expect(holder().pid).toBe(process.pid)
})

test('whoever has claimed the succession holds the lock, before the first file is replaced too', () => {
  const [first, second] = [owner(), owner({ pid: process.ppid })]
  plant(first)
  plant(second, `${path}.${first.run}`)
  expect(() => acquireLock(path, OPTIONS)).toThrow(`pid ${process.ppid}`)
  expect(lockHolder(path, NOW)).toEqual(second)
})

test('a release leaves the lock of somebody else alone', () => {
  const lock = acquireLock(path, OPTIONS)
  const other = owner({ pid: process.ppid })
  plant(other)
  lock.release()
  expect(holder()).toEqual(other)
})

test('a lock that cannot be written is trouble of the vault', () => {
  writeFileSync(join(folder, 'meta'), '')
  expect(() => acquireLock(path, OPTIONS)).toThrow(expect.objectContaining({ code: 'VAULT' }))
})

test('a file system without hard links will do', () => {
  links.refused = true
  try {
    const first = acquireLock(path, OPTIONS)
    expect(() => acquireLock(path, OPTIONS)).toThrow('is being written by another process')
    expect(left()).toEqual(['BTC.lock'])
    first.release()
    plant(owner())
    acquireLock(path, OPTIONS)
    expect(holder().pid).toBe(process.pid)
    expect(left()).toEqual(['BTC.lock'])
  } finally {
    links.refused = false
  }
})

interface Result {
  readonly won: number[]
  readonly collisions: number
}

/** Runs contenders with one set of arguments each, all from the same instant; undefined for one that was killed. */
async function contend(mode: 'takeOver' | 'churn', ...sets: number[][]): Promise<(Result | undefined)[]> {
  const module = join(compiled, 'vault', 'lock.js')
  const contenders = sets.map(set => {
    const command = [join(import.meta.dirname, 'contender.js'), mode, module, folder, ...set.map(String)]
    return spawn(process.execPath, command, { stdio: ['pipe', 'pipe', 'inherit'] })
  })
  await Promise.all(contenders.map(child => once(child.stdout, 'data')))
  const results = contenders.map(
    child =>
      new Promise<Result | undefined>((resolve, reject) => {
        child.stdout.once('data', data => resolve(JSON.parse(String(data))))
        child.once('exit', (code, signal) =>
          signal === 'SIGKILL' ? resolve(undefined) : reject(new Error(`exit ${code}`))
        )
      })
  )
  for (const child of contenders) child.stdin.write(String(Date.now() + 50))
  const settled = await Promise.all(results)
  for (const child of contenders) child.stdin.end()
  return settled
}

test('of several processes that find a stale lock in the same instant exactly one gets it', async () => {
  const rounds = 150
  for (let round = 0; round < rounds; round += 1) plant(owner(), join(folder, `${round}.lock`))
  const won = (await contend('takeOver', ...Array.from({ length: 5 }, () => [rounds, 8]))).map(
    result => result?.won ?? []
  )
  expect(won.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: rounds }, (_, round) => round))
  // Were one process always first, nothing would have been proven.
  expect(won.filter(list => list.length > 0).length).toBeGreaterThan(1)
}, 30_000)

test('no two processes are ever inside, though some die there', async () => {
  const results = await contend('churn', ...[7, 23, 40, 0, 0].map(deadlyTurn => [60, deadlyTurn]))
  expect(results.map(result => result?.collisions)).toEqual([undefined, undefined, undefined, 0, 0])
}, 30_000)
