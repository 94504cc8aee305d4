import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { EXCHANGES } from '../../src/exchanges/registry.ts'
import { SIMULATED_CREDENTIALS, type SimulatedExchange } from '../../src/simulator/listing.ts'
import {
  type Fault,
  randomFaults,
  type Simulator,
  simulatorFaultKinds,
  startSimulator
} from '../../src/simulator/simulator.ts'
import type { Row } from '../helpers/driver.ts'
import { derivedFiles, ensureBuilt, expectSameBytes, rebuildVault, recordsOf } from '../helpers/vault.ts'

// Every exchange of config/all.json in one process, each with faults of its own, but for one that has none.
// L3CAP_ALL_SECONDS=300 is the long form, L3CAP_FAULT_SEED repeats another traffic.
const SECONDS = Number(process.env.L3CAP_ALL_SECONDS ?? 30)
const SEED = Number(process.env.L3CAP_FAULT_SEED ?? 3)
const BIN = 'bin/l3cap.js'
/** How long after a fault its gap may show: silence of a whole connection is noticed last. */
const SHOWS_MS_MAX = 20_000

interface Entry {
  readonly exchange: SimulatedExchange
  readonly market?: string
  readonly symbols: string[]
}

interface Played extends Entry {
  readonly faults: readonly Fault[]
  readonly simulator: Simulator
  readonly startedMs: number
}

const { exchanges: ENTRIES } = JSON.parse(readFileSync('config/all.json', 'utf8')) as { exchanges: Entry[] }
const CALM = ENTRIES[SEED % ENTRIES.length]!
const about = `seed ${SEED}, ${SECONDS} s`

let folder: string
let vault: string
const played: Played[] = []

beforeAll(
  async () => {
    folder = mkdtempSync(join(tmpdir(), 'l3cap-all-'))
    vault = join(folder, 'vault')
    ensureBuilt()
    for (const entry of ENTRIES) {
      // What is refused is asked for again only after minutes.
      const kinds = simulatorFaultKinds(entry.exchange).filter(kind => kind !== 'refuse')
      const count = entry === CALM ? 0 : Math.ceil(SECONDS / 5)
      // The last faults have time to show.
      const faults = randomFaults(SEED, count, SECONDS * 700, entry.symbols, kinds)
      const startedMs = Date.now()
      const simulator = await startSimulator({
        exchange: entry.exchange,
        seed: SEED,
        faults,
        eventsPerSecond: 40,
        keepLog: true
      })
      played.push({ ...entry, faults, simulator, startedMs })
    }
    const exchanges = played.map(({ exchange, market, symbols, simulator }) => {
      const selection = {
        level: EXCHANGES[exchange]!.levels[0]!,
        market: market ?? null,
        channel: null,
        updateSpeed: null
      }
      const { pathname } = new URL(EXCHANGES[exchange]!.endpoints(selection as never).routes[0]!.url)
      const wsUrl = `ws://127.0.0.1:${simulator.port}${pathname}`
      return { exchange, symbols, wsUrl, restUrl: simulator.restUrl, ...(market ? { market } : {}) }
    })
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ exchanges, cadence: '200ms' }))
    const { key, secret, passphrase } = SIMULATED_CREDENTIALS
    const child = spawn(
      process.execPath,
      [BIN, 'run', '--config', join(folder, 'config.json'), '--vault', vault, '--log-dir', join(folder, 'logs')].concat(
        '--duration',
        `${SECONDS}s`
      ),
      {
        stdio: 'ignore',
        env: {
          ...process.env,
          COINBASE_API_KEY: key,
          COINBASE_API_SECRET: secret,
          COINBASE_API_PASSPHRASE: passphrase,
          KRAKEN_API_KEY: key,
          KRAKEN_API_SECRET: secret
        }
      }
    )
    expect(await new Promise(resolve => child.on('exit', resolve))).toBe(0)
  },
  SECONDS * 1000 + 60_000
)

afterAll(async () => {
  for (const { simulator } of played) await simulator.close()
  rmSync(folder, { recursive: true, force: true })
})

const folderOf = (name: string) => name.replace(/[^A-Za-z0-9._-]/g, '-')
const statusOf = ({ exchange }: Entry, symbol: string): Row[] => recordsOf(vault, exchange, 'status', folderOf(symbol))
const isBookGap = (row: Row) => row.event === 'gap' && (row.detail as Row).channel !== 'trades'
const msOf = (row: Row) => Number(row.recv_us) / 1000

/** The spans in which the book of an instrument was not to be trusted, ms since the epoch. */
function spans(entry: Entry, symbol: string): [fromMs: number, toMs: number][] {
  const found: [number, number][] = []
  let fromMs: number | null = 0
  for (const row of statusOf(entry, symbol)) {
    if (isBookGap(row)) fromMs ??= msOf(row)
    else if (row.event === 'synced' && fromMs !== null) {
      found.push([fromMs, msOf(row)])
      fromMs = null
    }
  }
  if (fromMs !== null) found.push([fromMs, Number.POSITIVE_INFINITY])
  return found
}

describe(`all exchanges at once (${about})`, () => {
  test('every book was live, at the finest level there is', () => {
    for (const entry of played) {
      const level = EXCHANGES[entry.exchange]!.levels[0]!
      for (const symbol of entry.symbols) {
        const market = entry.market === 'perp' || /F0|SWAP/.test(symbol) ? 'perps' : 'spot'
        const shots = recordsOf(vault, entry.exchange, `${level}_${market}`, folderOf(symbol))
        expect(shots.length, `${entry.exchange} ${symbol}, ${about}`).toBeGreaterThan(SECONDS)
        expect(statusOf(entry, symbol).some(row => row.event === 'synced')).toBe(true)
      }
    }
  })

  test('a calm exchange shows no fault of the others', () => {
    for (const symbol of CALM.symbols) {
      const rows = statusOf(CALM, symbol)
      expect(
        rows.filter(row => !['started', 'connected', 'subscribed', 'synced', 'stopped'].includes(String(row.event))),
        about
      ).toEqual([])
      expect(rows.filter(row => row.event === 'synced').length).toBe(1)
    }
  })

  test('every gap has a fault of its own exchange before it', () => {
    for (const entry of played) {
      for (const symbol of entry.symbols) {
        for (const gap of statusOf(entry, symbol).filter(isBookGap)) {
          const causes = entry.faults.filter(({ afterMs, ms }) => {
            const beganMs = entry.startedMs + (afterMs ?? 0)
            return msOf(gap) >= beganMs - 100 && msOf(gap) <= beganMs + (ms ?? 0) + SHOWS_MS_MAX
          })
          expect(causes.length, `${entry.exchange} ${JSON.stringify(gap)}, ${about}`).toBeGreaterThan(0)
        }
      }
    }
  })

  test('every lost frame lies in a recorded gap, where the exchange can prove it', () => {
    const report: string[] = []
    for (const entry of played) {
      const exchange = EXCHANGES[entry.exchange]!
      const proof = exchange.proof[exchange.levels[0]!]!
      const lost = entry.simulator.log.filter(
        ({ sent, fault, instrument }) => !sent && fault === 'drop' && entry.symbols.includes(instrument ?? '')
      )
      let found = 0
      for (const { instrument, atMs } of lost) {
        const covered = spans(entry, instrument!).some(
          ([fromMs, toMs]) => fromMs <= atMs + SHOWS_MS_MAX && toMs >= atMs
        )
        const noticed = statusOf(entry, instrument!).some(
          row => row.event === 'checksum_mismatch' && msOf(row) >= atMs && msOf(row) <= atMs + SHOWS_MS_MAX
        )
        if (covered || noticed) found++
        if (proof.sequence !== 'none')
          expect(covered, `${entry.exchange} ${instrument} at ${new Date(atMs).toISOString()}, ${about}`).toBe(true)
      }
      report.push(`${entry.exchange}${entry.market ? ` ${entry.market}` : ''}: ${found} of ${lost.length}`)
    }
    console.log(`lost frames found (${about}): ${report.join(', ')}`)
  })

  test('is rebuilt to the same bytes', () => {
    expectSameBytes(derivedFiles(vault), derivedFiles(rebuildVault(vault, join(folder, 'again'), 2)), about)
  })
})
