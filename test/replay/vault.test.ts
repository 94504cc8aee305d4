import { cpSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { HOUR_US } from '../../src/core/time.ts'
import {
  applyUpdate,
  type Damage,
  LevelBook,
  OrderBook,
  openVault,
  readEvents,
  type UpdateRecord
} from '../../src/l3cap.ts'
import { at, MadeVault, START_US } from './maker.ts'

let made: MadeVault

beforeEach(() => {
  made = new MadeVault()
})
afterEach(() => made.remove())

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = []
  for await (const item of items) found.push(item)
  return found
}

const query = { symbol: 'tBTCUSD' }
const ids = async (more = {}) =>
  (await all(openVault(made.path).readTrades({ ...query, ...more }))).map(each => each.trade_id)

describe('a vault', () => {
  it('tells what it holds', () => {
    made.begin(1).shot(2, new OrderBook()).trade(3, 'a').trade(7200, 'b')
    made.put('frames', at(1), '{"recv_us":1}\n')
    const vault = openVault(made.path)
    expect(vault.instruments()).toEqual([
      {
        exchange: 'bitfinex',
        name: 'BTCUSD',
        markets: ['spot'],
        levels: ['l3'],
        feeds: ['l3_events', 'l3_spot', 'status', 'trades'],
        fromUs: START_US,
        toUs: START_US + 3 * HOUR_US
      }
    ])
    expect(vault.connections()).toEqual([
      { exchange: 'bitfinex', name: 'BTCUSD', fromUs: START_US, toUs: START_US + HOUR_US }
    ])
    expect(vault.hours({ feed: 'trades', from: at(3600) })).toEqual([
      {
        exchange: 'bitfinex',
        feed: 'trades',
        name: 'BTCUSD',
        us: START_US + 2 * HOUR_US,
        paths: [made.file('trades', at(7200))]
      }
    ])
  })

  it('gives records between two moments, however they are written', async () => {
    for (const n of [1, 2, 3, 4]) made.trade(n * 1800, String(n))
    expect(await ids()).toEqual(['1', '2', '3', '4'])
    const [from, to] = [at(3600), at(7200)]
    const date = (us: number) => new Date(us / 1000)
    expect(await ids({ from, to })).toEqual(['2', '3'])
    expect(await ids({ from: date(from), to: date(to) })).toEqual(['2', '3'])
    expect(await ids({ from: date(from).toISOString(), to: date(to).toISOString() })).toEqual(['2', '3'])
    expect(await ids({ from: from + 1 })).toEqual(['3', '4'])
  })

  it('gives each line once where an hour is compressed and plain', async () => {
    made.trade(1, '1').trade(2, '2').compress('trades', START_US, true)
    expect(await ids()).toEqual(['1', '2'])
    made.trade(3, '3')
    expect(await ids()).toEqual(['1', '2', '3'])
    expect(await ids({ from: at(2) })).toEqual(['2', '3'])
  })

  it('follows a file that is compressed while it reads', async () => {
    made.trade(1, '1').trade(3601, '2').trade(3602, '3')
    const found: string[] = []
    for await (const trade of openVault(made.path).readTrades(query)) {
      found.push(trade.trade_id)
      if (found.length === 1) made.compress('trades', at(3601))
    }
    expect(found).toEqual(['1', '2', '3'])
  })

  it('gives lines word for word, with their place', async () => {
    made.trade(1, '1').trade(2, '2').shot(3, new OrderBook())
    const lines = await all(openVault(made.path).lines({ feed: 'trades', from: at(2) }))
    expect(lines).toEqual([
      {
        text: expect.stringContaining('"trade_id":"2"'),
        us: at(2),
        file: expect.stringMatching(/^raw\/bitfinex\/trades\/.*jsonl$/),
        line: 2
      }
    ])
  })

  it('leaves out the half line at the end', async () => {
    made.trade(1, '1').put('trades', at(2), '{"timestamp_utc":"20')
    expect(await ids()).toEqual(['1'])
  })

  it('gives status and snapshots, and frames of a connection', async () => {
    made.begin(1).shot(2, new OrderBook())
    made.put('frames', at(1), `{"recv_us":${at(1)},"conn":"c-1","frame":1,"dir":"tick"}\n`)
    const vault = openVault(made.path)
    expect((await all(vault.readStatus(query))).map(({ event }) => event)).toEqual(['started', 'synced'])
    expect((await all(vault.readSnapshots(query))).map(({ recv_us }) => recv_us)).toEqual([at(2)])
    expect((await all(vault.readFrames({}))).map(({ dir }) => dir)).toEqual(['tick'])
  })
})

describe('the events of an instrument', () => {
  it('are those of its orders, or of its levels', async () => {
    made.begin(1)
    expect((await all(readEvents(openVault(made.path), query))).map(({ event_type }) => event_type)).toEqual([
      'clear',
      'snapshot',
      'snapshot'
    ])
    expect(await all(readEvents(openVault(made.path), { ...query, level: 'l2' }))).toEqual([])
    made.remove()
    made = new MadeVault({ level: 'l2' }).begin(1).update(2, '[["100","0","0",null]]')
    const book = new LevelBook()
    for await (const update of readEvents(openVault(made.path), query)) applyUpdate(book, update as UpdateRecord)
    expect([book.top(false, 9), book.top(true, 9)]).toEqual(['[]', '[["101","3","0","1"]]'])
  })
})

describe('damage', () => {
  beforeEach(() => {
    made.trade(1, '1').trade(2, '2').trade(3, '3')
  })
  const spoil = () => made.edit('trades', START_US, lines => lines.with(1, lines[1]!.slice(0, -9)))

  it('ends the reading with its place', async () => {
    spoil()
    await expect(ids()).rejects.toMatchObject({
      code: 'VAULT_DAMAGED',
      message: expect.stringMatching(/^raw\/bitfinex\/trades\/BTCUSD\/.*jsonl:2: /)
    })
  })

  it('is told and passed over where somebody listens', async () => {
    spoil()
    const damage: Damage[] = []
    expect(await ids({ onDamage: (each: Damage) => damage.push(each) })).toEqual(['1', '3'])
    expect(damage).toEqual([expect.objectContaining({ line: 2, file: expect.stringContaining('trades') })])
  })

  it('of a compressed file is told', async () => {
    made.compress('trades', START_US)
    truncateSync(`${made.file('trades', START_US)}.gz`, 40)
    const damage: Damage[] = []
    await ids({ onDamage: (each: Damage) => damage.push(each) })
    expect(damage).toEqual([expect.objectContaining({ line: null, file: expect.stringMatching(/\.gz$/) })])
    await expect(ids()).rejects.toMatchObject({ code: 'VAULT_DAMAGED' })
  })
})

describe('a query', () => {
  it.each([
    ['of an unknown symbol', { symbol: 'ETHUSD' }, 'symbol ETHUSD: the vault holds BTCUSD'],
    ['of an unknown exchange', { exchange: 'okx', ...query }, 'exchange okx: the vault holds bitfinex'],
    ['with a time that is none', { ...query, from: 'yesterday' }, 'yesterday is no moment']
  ])('%s is refused', async (_, wrong, message) => {
    made.trade(1, '1')
    await expect(all(openVault(made.path).readTrades(wrong))).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining(message)
    })
  })

  it('that two instruments answer to is refused, with both', async () => {
    made.trade(1, '1')
    cpSync(join(made.path, 'raw', 'bitfinex'), join(made.path, 'raw', 'okx'), { recursive: true })
    await expect(ids()).rejects.toMatchObject({ message: expect.stringContaining('bitfinex BTCUSD, okx BTCUSD') })
    expect(await ids({ exchange: 'okx' })).toEqual(['1'])
  })

  it('of no vault is refused', () => {
    expect(() => openVault(`${made.path}/none`)).toThrow('there is no vault')
  })
})
