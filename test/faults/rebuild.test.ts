import { type ChildProcess, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { randomFaults, type Simulator, startSimulator } from '../../src/simulator/simulator.ts'
import type { Row } from '../helpers/driver.ts'
import { derivedFiles, ensureBuilt, expectSameBytes, rebuildVault, recordsOf } from '../helpers/vault.ts'

// A capture of four instruments on two exchanges with twenty faults, over a change of the hour. The length can be set:
// L3CAP_FAULT_SECONDS=120 is the long form, L3CAP_FAULT_SEED repeats another traffic.
const SECONDS = Number(process.env.L3CAP_FAULT_SECONDS ?? 24)
const SEED = Number(process.env.L3CAP_FAULT_SEED ?? 7)
const FAULTS = 20
const BIN = 'bin/l3cap.js'
const INSTRUMENTS = { bitfinex: ['BTCUSD', 'ETHUSD'], okx: ['BTC-USDT-SWAP', 'ETH-USDT-SWAP'] } as const

let folder: string
let vault: string
const simulators: Simulator[] = []

beforeAll(
  async () => {
    folder = mkdtempSync(join(tmpdir(), 'l3cap-faults-'))
    vault = join(folder, 'vault')
    ensureBuilt()
    const exchanges = []
    for (const exchange of ['bitfinex', 'okx'] as const) {
      const faults = randomFaults(SEED, FAULTS / 2, SECONDS * 800, INSTRUMENTS[exchange])
      const simulator = await startSimulator({ exchange, seed: SEED, faults, eventsPerSecond: 60, okxChecksums: true })
      simulators.push(simulator)
      exchanges.push({ exchange, symbols: INSTRUMENTS[exchange], wsUrl: simulator.wsUrl, restUrl: simulator.restUrl })
    }
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ exchanges, cadence: '200ms' }))
    // The full hour falls into the middle of the capture.
    const shift = 3_600_000 - (Date.now() % 3_600_000) - SECONDS * 500
    const child = spawn(
      process.execPath,
      [
        BIN,
        'run',
        '--config',
        join(folder, 'config.json'),
        '--vault',
        vault,
        '--log-dir',
        join(folder, 'logs'),
        '--duration',
        `${SECONDS}s`
      ],
      {
        stdio: 'ignore',
        env: { ...process.env, CLOCK_SHIFT_MS: String(shift), NODE_OPTIONS: '--import ./test/faults/shifted-clock.js' }
      }
    )
    expect(await exitOf(child)).toBe(0)
  },
  SECONDS * 1000 + 60_000
)

afterAll(async () => {
  for (const simulator of simulators) await simulator.close()
  rmSync(folder, { recursive: true, force: true })
})

function exitOf(child: ChildProcess): Promise<number | null> {
  return new Promise(resolve => child.on('exit', code => resolve(code)))
}

const about = `seed ${SEED}`
const rebuild = (from: string, name: string, jobs: number) => rebuildVault(from, join(folder, name), jobs)

describe(`a capture with ${FAULTS} faults (seed ${SEED}, ${SECONDS} s)`, () => {
  test('met faults in every book, over two hours', () => {
    const files = derivedFiles(vault)
    for (const [exchange, names] of Object.entries(INSTRUMENTS)) {
      const hours = new Set([...files.keys()].filter(path => path.startsWith(exchange)).map(path => path.slice(-8, -6)))
      expect(hours.size, `hours of ${exchange}`).toBe(2)
      const gaps = names.flatMap(name => events(exchange, name, 'gap'))
      expect(gaps.length, `gaps of ${exchange}, seed ${SEED}`).toBeGreaterThan(2)
    }
  })

  test('every gap is healed, or the capture ended within it', () => {
    for (const [exchange, names] of Object.entries(INSTRUMENTS)) {
      for (const name of names) {
        const told = events(exchange, name, 'gap', 'synced').map(record => record.event)
        for (const [at, event] of told.entries()) {
          if (event === 'gap' && at < told.length - 1) expect(told[at + 1], `${name}, seed ${SEED}`).toBe('synced')
        }
      }
    }
  })

  test('is rebuilt to the same bytes', () => {
    expectSameBytes(derivedFiles(vault), derivedFiles(rebuild(vault, 'again', 1)), about)
  })

  test('is rebuilt to the same bytes with the hours side by side', () => {
    expectSameBytes(derivedFiles(vault), derivedFiles(rebuild(vault, 'side-by-side', 4)), about)
  })

  test('is rebuilt to the same bytes from its last hour alone', () => {
    const alone = join(folder, 'alone')
    cpSync(vault, alone, { recursive: true })
    const hours = [...new Set([...derivedFiles(alone).keys()].map(path => path.slice(-19)))].sort()
    const files = readdirSync(join(alone, 'raw'), { recursive: true, withFileTypes: true }).filter(entry =>
      entry.isFile()
    )
    for (const file of files) {
      if (join(file.parentPath, file.name).slice(-19) === hours[0]) rmSync(join(file.parentPath, file.name))
    }
    const left = derivedFiles(alone)
    expect(left.size).toBeGreaterThan(0)
    expectSameBytes(left, derivedFiles(rebuild(alone, 'alone-again', 1)), about)
  })

  test('a vault with one frame changed is not rebuilt to the same bytes', () => {
    const changed = join(folder, 'changed')
    cpSync(vault, changed, { recursive: true })
    const frames = readdirSync(join(changed, 'raw/okx/frames'), { recursive: true, withFileTypes: true }).find(entry =>
      entry.isFile()
    )!
    const path = join(frames.parentPath, frames.name)
    const lines = readFileSync(path, 'utf8').split('\n')
    const place = lines.findIndex(line => line.includes('"action":"update"') && line.includes('"bids":[["'))
    lines[place] = lines[place]!.replace(/("bids":\[\["[^"]+",")([^"]+)"/, '$19$2"')
    writeFileSync(path, lines.join('\n'))
    expect(() =>
      expectSameBytes(derivedFiles(vault), derivedFiles(rebuild(changed, 'changed-again', 1)), about)
    ).toThrow()
  })
})

function events(exchange: string, name: string, ...wanted: string[]): Row[] {
  return recordsOf(vault, exchange, 'status', name).filter(record => wanted.includes(String(record.event)))
}
