import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { Exchange, Selection } from '../src/exchanges/exchange.ts'
import { EXCHANGES } from '../src/exchanges/registry.ts'
import { RULES } from '../src/quality/finding.ts'
import { FAULT_KINDS } from '../src/simulator/faults.ts'
import { listedInstruments, SIMULATED_EXCHANGES, type SimulatedExchange } from '../src/simulator/listing.ts'
import { simulatorFaultKinds } from '../src/simulator/simulator.ts'

// What README.md says of the exchanges, against what they declare: its tables cannot be forgotten.

const README = readFileSync(new URL('../README.md', import.meta.url), 'utf8')
const PROOF_HEAD =
  '| exchange | level | channel | sequence | checksum | credentials | depth held | instruments a connection | silence limit |'
const SIMULATOR_HEAD = '| exchange | usual instruments | faults it does not know |'

/** The rows of the table below a heading row. */
function tableOf(head: string): string[] {
  const lines = README.split('\n')
  const rows = lines.slice(lines.indexOf(head) + 2)
  return lines.includes(head) ? rows.slice(0, rows.indexOf('')) : []
}

function rowOf(exchange: Exchange, level: Selection['level']): string {
  const selection: Selection = { level, market: null, channel: null, updateSpeed: null }
  const { sequence, checksum } = exchange.proof[level]!
  const instrument = exchange.describe('X', selection)
  const depth = exchange.depthMax(instrument)
  const [book, ...others] = exchange.endpoints(selection).routes
  const { credentials } = exchange
  const cells = [
    `\`${exchange.id}\``,
    level,
    `\`${instrument.channel}\``,
    sequence,
    checksum ? 'yes' : 'no',
    credentials?.levels.includes(level) ? credentials.variables.map(name => `\`${name}\``).join(', ') : 'none',
    Number.isFinite(depth) ? `${depth} ${level === 'l3' ? 'orders' : 'levels'} a side` : 'no limit',
    [
      book!.instrumentsMax,
      ...others.map(({ feeds, instrumentsMax }) => `${feeds.join(' and ')} ${instrumentsMax}`)
    ].join('; '),
    `${exchange.limits.silenceMsMax / 1000} s`
  ]
  return `| ${cells.join(' | ')} |`
}

function simulatorRowOf(id: SimulatedExchange): string {
  const known = simulatorFaultKinds(id)
  const unknown = FAULT_KINDS.filter(kind => !known.includes(kind)).map(kind => `\`${kind}\``)
  const names = listedInstruments(id, []).map(name => `\`${name}\``)
  return `| \`${id}\` | ${names.join(', ')} | ${unknown.join(', ') || 'none'} |`
}

describe('README.md', () => {
  it.each(Object.entries(EXCHANGES))('names %s, and says what it can prove as the code does', (id, exchange) => {
    expect(README).toContain(`\`${id}\``)
    for (const level of exchange.levels) expect(tableOf(PROOF_HEAD)).toContain(rowOf(exchange, level))
  })

  it('says what an exchange can prove of no other one', () => {
    const rows = Object.values(EXCHANGES).flatMap(exchange => exchange.levels.map(level => rowOf(exchange, level)))
    expect(tableOf(PROOF_HEAD).toSorted()).toEqual(rows.toSorted())
  })

  it('says what each simulated exchange has', () => {
    expect(tableOf(SIMULATOR_HEAD)).toEqual(SIMULATED_EXCHANGES.map(simulatorRowOf))
  })
})

it('src/quality/README.md has every rule of a check as it is, and no other', () => {
  const lines = readFileSync(new URL('../src/quality/README.md', import.meta.url), 'utf8').split('\n')
  const rows = lines.filter(line => /^\| `\w+` \| (?:error|warning|info) \|/.test(line))
  const due = Object.entries(RULES).map(([rule, { severity, demands }]) => `| \`${rule}\` | ${severity} | ${demands} |`)
  expect(rows.toSorted()).toEqual(due.toSorted())
})
