import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  folderName,
  healthPath,
  hourPath,
  instrumentPath,
  listHours,
  listNames,
  lockPath,
  narrowFilter,
  parseHourPath,
  streamDir
} from '../../src/vault/layout.ts'

const HOUR = Date.UTC(2023, 11, 14, 15) / 3_600_000
let vault: string

beforeEach(() => {
  vault = mkdtempSync(join(tmpdir(), 'l3cap-layout-'))
})
afterEach(() => rmSync(vault, { recursive: true }))

function put(inside: string): string {
  const path = join(vault, inside)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, '{}\n')
  return path
}

test('names become folders that stay inside the vault', () => {
  expect(folderName('BTC-USDT-SWAP')).toBe('BTC-USDT-SWAP')
  expect(folderName('BTCF0:USTF0')).toBe('BTCF0-USTF0')
  expect(folderName('BTC/USD')).toBe('BTC-USD')
  expect(folderName('a\\b c€d\n')).toBe('a-b-c-d-')
  expect(folderName('😀')).toBe('-')
  expect(folderName('.')).toBe('-')
  expect(folderName('..')).toBe('--')
  expect(folderName('')).toBe('-')
  expect(folderName('../x')).toBe('..-x')
})

test('paths are those of the contract', () => {
  expect(hourPath('v', 'okx', 'l2_perps', 'BTC-USDT-SWAP', HOUR)).toBe(
    join('v', 'raw', 'okx', 'l2_perps', 'BTC-USDT-SWAP', '2023-12-14', '15.jsonl')
  )
  expect(streamDir('v', 'kraken', 'trades', 'BTC/USD')).toBe(join('v', 'raw', 'kraken', 'trades', 'BTC-USD'))
  expect(instrumentPath('v', 'kraken', 'BTC/USD')).toBe(join('v', 'meta', 'kraken', 'instruments', 'BTC-USD.json'))
  expect(healthPath('v', 'okx', 'okx-1')).toBe(join('v', 'meta', 'okx', 'health', 'okx-1.json'))
  expect(lockPath('v', 'okx', 'okx-1')).toBe(join('v', 'meta', 'okx', 'locks', 'okx-1.lock'))
})

test('a path of an hour is read back', () => {
  const inside = relative('v', hourPath('v', 'okx', 'l2_perps', 'BTC-USDT-SWAP', HOUR))
  const stream = { exchange: 'okx', feed: 'l2_perps', name: 'BTC-USDT-SWAP', hour: HOUR }
  expect(parseHourPath(inside)).toEqual({ ...stream, kind: 'jsonl' })
  expect(parseHourPath(`${inside}.gz`)).toEqual({ ...stream, kind: 'gz' })
  expect(parseHourPath(`${inside}.torn`)).toEqual({ ...stream, kind: 'torn' })
  expect(parseHourPath(`${inside}.gz.tmp`)).toEqual({ ...stream, kind: 'tmp' })
})

test.each([
  'raw/okx/l2_perps/X/2023-12-14/24.jsonl',
  'raw/okx/l2_perps/X/2023-12-14/5.jsonl',
  'raw/okx/l2_perps/X/2023-12-14/05.json',
  'raw/okx/l2_perps/X/2023-12-14/05.jsonl.bak',
  'raw/okx/l2_perps/X/2023-12-14/05.jsonl.gz.torn',
  'raw/okx/l2_perps/X/2023-13-45/05.jsonl',
  'raw/okx/l2_perps/X/2023-02-29/05.jsonl',
  'raw/okx/l2_perps/X/2023-2-09/05.jsonl',
  'raw/okx/l9_perps/X/2023-12-14/05.jsonl',
  'raw/okx/l2_perps/../2023-12-14/05.jsonl',
  'raw/../l2_perps/X/2023-12-14/05.jsonl',
  'raw/okx/l2_perps/a b/2023-12-14/05.jsonl',
  'raw/okx/l2_perps/X/Y/2023-12-14/05.jsonl',
  'meta/okx/l2_perps/X/2023-12-14/05.jsonl',
  ''
])('%s is no path of an hour', path => {
  expect(parseHourPath(path)).toBeUndefined()
})

test('hours are listed in order, without links, foreign files and unfinished compressions', () => {
  const wanted = [
    'raw/bitfinex/frames/bitfinex-1/2023-12-14/15.jsonl',
    'raw/okx/l2_perps/X/2023-12-13/23.jsonl.gz',
    'raw/okx/l2_perps/X/2023-12-14/00.jsonl.gz',
    'raw/okx/l2_perps/X/2023-12-14/00.jsonl',
    'raw/okx/l2_perps/X/2023-12-14/00.jsonl.torn',
    'raw/okx/l2_perps/Y/2023-12-14/00.jsonl'
  ]
  for (const inside of wanted) put(inside)
  put('raw/okx/l2_perps/X/2023-12-14/01.jsonl.gz.tmp')
  put('raw/okx/l2_perps/X/2023-12-14/notes.txt')
  put('raw/okx/notes/X/2023-12-14/00.jsonl')
  put('raw/README.txt')
  symlinkSync(join(vault, wanted[0]!), join(vault, 'raw/okx/l2_perps/X/2023-12-14/05.jsonl'))
  symlinkSync(join(vault, 'raw/okx/l2_perps/X'), join(vault, 'raw/okx/l2_perps/Z'))
  const list = (...filter: Parameters<typeof listHours>[1][]) =>
    listHours(vault, ...filter).map(file => relative(vault, file.path).split('\\').join('/'))
  expect(list()).toEqual(wanted)
  expect(list({ exchange: 'okx', name: 'Y' })).toEqual([wanted[5]])
  expect(list({ feed: 'frames' })).toEqual([wanted[0]])
  expect(list({ name: ['bitfinex-1', 'Y'] })).toEqual([wanted[0], wanted[5]])
  expect(listHours(join(vault, 'nowhere'))).toEqual([])
  expect([...listNames(vault)]).toEqual([
    ['bitfinex', ['bitfinex-1']],
    ['okx', ['X', 'Y']]
  ])
})

test('symbols are found by the common spellings, and mistakes say what there is', () => {
  put('raw/bitfinex/trades/BTCUSD/2023-12-14/15.jsonl')
  put('raw/okx/trades/BTC-USD/2023-12-14/15.jsonl')
  put('raw/okx/trades/BTC-USDT-SWAP/2023-12-14/15.jsonl')
  const names = (exchanges: string[], symbols: string[]) => narrowFilter(vault, exchanges, symbols).filter.name
  expect(names(['bitfinex'], ['tBTCUSD'])).toEqual(['BTCUSD'])
  expect(names(['bitfinex'], ['BTC/USD'])).toEqual(['BTCUSD'])
  expect(names([], ['BTC-USD'])).toEqual(['BTC-USD'])
  expect(names([], ['BTC/USD'])).toEqual(['BTC-USD'])
  expect(names(['okx'], ['btc-usdt-swap'])).toEqual(['BTC-USDT-SWAP'])
  expect(names([], [])).toBeUndefined()
  expect(narrowFilter(vault, ['nyse'], ['IBM']).mistakes).toEqual([
    '--exchange nyse: the vault holds bitfinex, okx',
    '--symbol IBM: the vault holds none'
  ])
})
