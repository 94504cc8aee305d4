import { type ChildProcess, spawn } from 'node:child_process'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { printable } from '../../src/core/printable.ts'
import { type Simulator, startSimulator } from '../../src/simulator/simulator.ts'
import { folderName, healthPath, hourPath, instrumentPath, lockPath } from '../../src/vault/layout.ts'
import { storeMetadata } from '../../src/vault/metadata.ts'
import { ensureBuilt } from '../helpers/vault.ts'

// What others say never becomes a path outside the vault or an order to a terminal, and what is written is nobody else's.
const BIN = resolve(process.env.L3CAP_FAULT_BIN ?? 'bin/l3cap.js')
const isUnix = process.platform !== 'win32'
const SEED = Number(process.env.L3CAP_FAULT_SEED ?? 13)
const NAMES = Number(process.env.L3CAP_FAULT_NAMES ?? 3000)
const HOUR = Date.UTC(2026, 10, 20) / 3_600_000
const ODD = [
  '../../x',
  '..',
  '.',
  '',
  '/etc/passwd',
  'C:\\x',
  'a\0b',
  'x\u001b[31m',
  'A'.repeat(10_000),
  'CON',
  'nul',
  'AUX.USD',
  'COM1',
  'lpt9.',
  'BTC.',
  'BTC...',
  'BTC ',
  '~',
  '$HOME',
  '-rf',
  '\u202egpj',
  '__proto__',
  '.lock',
  'x\n'
]
const RESERVED = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)/i

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-safety-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

describe('names that servers and users give', () => {
  const vault = resolve('/vaults/one')

  test(`stay inside the vault, and are names on every system (seed ${SEED})`, () => {
    const words = fc.constantFrom(...ODD, '..', '/', '\\', '.', ':', '%2e')
    const names = fc.oneof(
      words,
      fc.string({ unit: 'binary' }),
      fc.array(words).map(parts => parts.join(''))
    )
    fc.assert(
      fc.property(names, name => {
        const folderOf = folderName(name)
        expect(folderOf).toMatch(/^[A-Za-z0-9._-]{1,200}$/)
        expect(folderOf).not.toMatch(/\.$/)
        expect(folderOf).not.toMatch(RESERVED)
        const paths = [
          hourPath(vault, 'okx', 'trades', name, HOUR),
          instrumentPath(vault, 'okx', name),
          lockPath(vault, 'okx', name),
          healthPath(vault, 'okx', name)
        ]
        for (const path of paths) expect(relative(vault, resolve(path)).split(/[\\/]/)).not.toContain('..')
        expect(dirname(dirname(dirname(paths[0]!)))).toBe(join(vault, 'raw', 'okx', 'trades'))
        expect(dirname(paths[1]!)).toBe(join(vault, 'meta', 'okx', 'instruments'))
      }),
      { numRuns: NAMES, seed: SEED }
    )
  })

  test('are stored as metadata where they belong, whatever they are', () => {
    for (const [at, name] of ODD.entries()) {
      const path = instrumentPath(folder, 'okx', name)
      expect(storeMetadata(path, { at, instId: name }, '2026-11-20T00:00:00.000Z'), name.slice(0, 40)).toBe(true)
      expect((JSON.parse(readFileSync(path, 'utf8')) as { instId: string }).instId).toBe(name)
    }
    const inside = readdirSync(folder, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
    for (const entry of inside) expect(entry.parentPath).toBe(join(folder, 'meta', 'okx', 'instruments'))
  })

  test('that differ beyond what a file system takes are different folders', () => {
    const long = 'A'.repeat(10_000)
    expect(folderName(`${long}1`)).not.toBe(folderName(`${long}2`))
    expect(folderName(`${long}1`)).toBe(folderName(`${long}1`))
    expect(folderName('A'.repeat(200))).toBe('A'.repeat(200))
  })
})

test('text for people holds nothing that a terminal would obey', () => {
  const hostile = 'a\u001b[2J\u001b]0;x\u0007\r\b\u009b31m\u0085\u202eb\ufeff\u2028\u0000c'
  const shown = printable(hostile)
  expect(shown).toBe('a\\u001b[2J\\u001b]0;x\\u0007\\u000d\\u0008\\u009b31m\\u0085\\u202eb\\ufeff\\u2028\\u0000c')
  expect(printable('one\n\ttwo é€😀 "x" \\')).toBe('one\n\ttwo é€😀 "x" \\')
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
      expect(printable(text)).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/)
    }),
    { numRuns: 500, seed: SEED }
  )
})

describe.skipIf(!isUnix)('a capture under a careless umask', () => {
  let simulator: Simulator
  beforeAll(ensureBuilt, 120_000)
  beforeEach(async () => {
    simulator = await startSimulator({ exchange: 'bitfinex', seed: 2, eventsPerSecond: 40, connectsPerMinute: 0 })
  })
  afterEach(() => simulator.close())

  /** Starts the program with umask 0. */
  function start(...words: string[]): { child: ChildProcess; exited: Promise<number | null> } {
    const child = spawn('/bin/sh', ['-c', 'umask 0; exec "$0" "$@"', process.execPath, BIN, ...words], {
      stdio: 'ignore'
    })
    return { child, exited: new Promise(done => child.on('exit', done)) }
  }

  /** Everything below a folder that others than its owner may write, or strangers read. */
  function careless(root: string): string[] {
    return readdirSync(root, { recursive: true, withFileTypes: true })
      .map(entry => join(entry.parentPath, entry.name))
      .concat(root)
      .map(path => ({ path, mode: lstatSync(path).mode & 0o777 }))
      .filter(({ mode }) => (mode & 0o027) !== 0)
      .map(({ path, mode }) => `${mode.toString(8)} ${relative(root, path)}`)
  }

  /** The numbers of the sockets on which a process listens (Linux). */
  function listening(pid: number): string[] {
    const open = readdirSync(`/proc/${pid}/fd`).map(fd => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`)
      } catch {
        return '' // closed meanwhile
      }
    })
    const isListening = (line: string) => line.trim().split(/\s+/)[3] === '0A'
    const tables = ['tcp', 'tcp6'].filter(name => existsSync(`/proc/${pid}/net/${name}`))
    const rows = tables.flatMap(name =>
      readFileSync(`/proc/${pid}/net/${name}`, 'utf8').split('\n').filter(isListening)
    )
    return rows.map(row => `socket:[${row.trim().split(/\s+/)[9]}]`).filter(name => open.includes(name))
  }

  test('gives nobody else the right to write, in no file it makes; and listens to nobody', {
    timeout: 60_000
  }, async () => {
    const vault = join(folder, 'vault')
    const common = ['run', '--exchange', 'bitfinex', '--symbol', 'BTCUSD', '--cadence', '200ms', '--vault', vault]
    const urls = ['--ws-url', simulator.wsUrl, '--rest-url', simulator.restUrl, '--log-dir', join(folder, 'logs')]
    const { child, exited } = start(...common, ...urls)
    const shots = join(vault, 'raw', 'bitfinex', 'l3_spot', 'BTCUSD')
    const endMs = performance.now() + 30_000
    while (!existsSync(shots) && performance.now() < endMs) await new Promise(done => setTimeout(done, 30))
    expect(existsSync(shots)).toBe(true)
    if (existsSync('/proc/self/net/tcp')) {
      expect(listening(child.pid!)).toEqual([])
      expect(listening(process.pid), 'the simulator is found').not.toEqual([])
    }
    expect(careless(vault)).toEqual([])
    child.kill('SIGTERM')
    expect(await exited).toBe(0)
    // An old hour with half a line, made by somebody careless: what is made of it is as private as it can be.
    const old = hourPath(vault, 'bitfinex', 'trades', 'OTHER', Math.floor(Date.now() / 3_600_000) - 9)
    mkdirSync(dirname(old), { recursive: true, mode: 0o750 })
    writeFileSync(old, '{}\nhalf', { mode: 0o640 })
    for (const command of ['repair', 'retention']) {
      expect(await start(command, '--vault', vault).exited).toBe(0)
    }
    expect(existsSync(`${old}.torn`)).toBe(true)
    expect(existsSync(`${old}.gz`)).toBe(true)
    const rebuilt = join(folder, 'rebuilt')
    expect(await start('rebuild', '--vault', vault, '--out', rebuilt, '--jobs', '1').exited).toBe(0)
    expect([...careless(vault), ...careless(rebuilt)]).toEqual([])
  })
})

describe('what is installed with the program', () => {
  interface Package {
    version?: string
    dev?: boolean
    hasInstallScript?: boolean
    integrity?: string
    link?: boolean
  }
  const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, Package> }
  const packages = Object.entries(lock.packages).filter(([path, { dev }]) => path !== '' && dev !== true)
  const EXACT = /^\d+\.\d+\.\d+(?:-[\w.]+)?$/

  test('runs no script, is pinned to the byte, and is little', () => {
    for (const [path, found] of packages) {
      expect(found.hasInstallScript ?? false, path).toBe(false)
      expect(found.link ?? false, path).toBe(false)
      expect(found.version, path).toMatch(EXACT)
      expect(found.integrity, path).toMatch(/^sha512-/)
    }
    expect(packages.length).toBeGreaterThan(5)
    expect(packages.length).toBeLessThanOrEqual(45)
  })

  test('is named by exact versions', () => {
    const { dependencies, devDependencies } = JSON.parse(readFileSync('package.json', 'utf8')) as Record<
      'dependencies' | 'devDependencies',
      Record<string, string>
    >
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies }))
      expect(version, name).toMatch(EXACT)
    expect(Object.keys(dependencies).length).toBeLessThanOrEqual(12)
  })
})
