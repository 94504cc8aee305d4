import { beforeEach, expect, it } from 'vitest'
import type { Trade } from '../../src/exchanges/exchange.ts'
import { TradeChain } from '../../src/exchanges/trade-chain.ts'
import { StubHost } from '../helpers/host.ts'

let host: StubHost
let chain: TradeChain
let asked: { from: number; to: number; id: string }[]

beforeEach(() => {
  host = new StubHost()
  asked = []
  chain = new TradeChain(host, (_, from, to, id) => void asked.push({ from, to, id }))
})

const trade = (id: number, metadata = '{}'): Trade => ({
  id: String(id),
  isSell: false,
  price: '1',
  size: '1',
  exchangeTime: null,
  metadata
})
const live = (...ids: number[]) => {
  for (const id of ids) chain.live(0, id, trade(id))
}
const answer = (...ids: number[]) =>
  chain.fill(
    chain.hole(asked.at(-1)!.id)!,
    ids.map(id => trade(id, '{"backfill":true}'))
  )
const written = () => host.trades.map(({ id }) => Number(id))
const gaps = () =>
  host.statuses.filter(({ event }) => event === 'gap').map(({ detail }) => [detail.expected, detail.received])

it('asks for nothing while ids rise by one, come again, or come late', () => {
  live(5, 6, 7, 7, 5, 8)
  expect(asked).toEqual([])
})

it('fills a hole from the history, and only it', () => {
  live(5, 9)
  expect(asked).toMatchObject([{ from: 6, to: 8 }])
  answer(4, 5, 6, 7, 8, 9, 10)
  expect(written()).toEqual([5, 9, 6, 7, 8])
  expect(gaps()).toEqual([])
  expect(chain.state.holes).toEqual([])
})

it('asks page by page while there is progress', () => {
  live(1, 10)
  answer(2, 3, 4)
  expect(asked.at(-1)).toMatchObject({ from: 5, to: 9 })
  answer(5, 6, 7, 8, 9)
  expect(written()).toEqual([1, 10, 2, 3, 4, 5, 6, 7, 8, 9])
  expect(chain.state.holes).toEqual([])
})

it('tells what the history does not have', () => {
  live(1, 6)
  answer(2, 5)
  expect(written()).toEqual([1, 6, 2, 5])
  expect(gaps()).toEqual([[3, 5]])
})

it('gives up after five answers without a trade, and tells', () => {
  live(1, 3)
  for (let n = 0; n < 20; n++) {
    const hole = chain.state.holes[0]
    if (hole?.id) chain.fill(hole, [])
    host.pass(1)
    chain.tick()
  }
  expect(asked).toHaveLength(5)
  expect(gaps()).toEqual([[2, 3]])
})

it('asks again when no answer comes', () => {
  live(1, 3)
  for (let n = 0; n < 62; n++) {
    host.pass(10)
    chain.tick()
    if (n < 59) expect(asked).toHaveLength(1)
  }
  expect(asked).toHaveLength(2)
  expect(chain.hole(asked[0]!.id)).toBeUndefined()
})

it('does not ask twice for one hole, whoever shows it', () => {
  live(1)
  chain.newest(0, 4)
  live(5)
  expect(asked).toMatchObject([{ from: 2, to: 4 }])
  expect(chain.state.holes).toHaveLength(1)
})

it('a hole that is too long is told, and its newest part filled', () => {
  live(1, 20_000)
  expect(asked).toMatchObject([{ from: 15_000, to: 19_999 }])
  expect(gaps()).toEqual([[2, 15_000]])
})

it('asks for two holes at a time, the others wait for their turn', () => {
  live(1, 3, 5, 7, 9)
  expect(asked).toHaveLength(2)
  chain.fill(chain.hole(asked[0]!.id)!, [trade(2)])
  expect(asked).toHaveLength(2)
  chain.tick()
  expect(asked.map(({ from }) => from)).toEqual([2, 4, 6])
})

it('too many holes are told', () => {
  for (let id = 1; id < 60; id += 2) live(id)
  expect(host.tradeHoles).toHaveLength(16)
  expect(gaps()).toHaveLength(13)
})

it('a hole outlives its connection: the next one goes on with it, from where it stands', () => {
  live(1, 10)
  answer(2, 3)
  const next: { from: number; to: number; id: string }[] = []
  const other = new TradeChain(host, (_, from, to, id) => void next.push({ from, to, id }))
  other.tick()
  other.tick()
  expect(next).toMatchObject([{ from: 4, to: 9 }])
  other.fill(
    other.hole(next[0]!.id)!,
    [4, 5, 6, 7, 8, 9].map(id => trade(id))
  )
  expect(written()).toEqual([1, 10, 2, 3, 4, 5, 6, 7, 8, 9])
  expect(host.tradeHoles).toEqual([])
  const before = asked.length
  host.pass(40)
  chain.tick()
  expect(chain.state.holes).toEqual([])
  expect(asked).toHaveLength(before)
  expect(gaps()).toEqual([])
})
