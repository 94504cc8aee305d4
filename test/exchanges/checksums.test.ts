import crc32 from 'crc-32'
import { describe, expect, it } from 'vitest'
import { LevelBook } from '../../src/book/levels.ts'
import { OrderBook } from '../../src/book/orders.ts'
import { priceKey } from '../../src/core/decimal.ts'
import { bitfinexChecksum } from '../../src/exchanges/bitfinex.ts'
import { okxChecksum } from '../../src/exchanges/okx.ts'

/** Published vectors: the text of the checksum, its parts divided by spaces where the exchange puts colons. */
const XRPBTC = {
  crc: 30_026_640,
  parts: [
    '0.0000886 1060.55466114 0.00008864 -481.8549041 0.00008859 1000 0.0000887 -2141.77009092 0.00008858',
    '2713.47159343 0.00008871 -2256.45433182 0.00008857 4276.92870916 0.00008872 -2707.58122743 0.00008856',
    '6764.75562319 0.00008873 -15699.9 0.00008854 5641.48532401 0.00008874 -5640.31794092 0.00008853',
    '2255.92632223 0.00008876 -29004.93294912 0.0000885 2256.69584601 0.00008878 -2500 0.00008848 3630.3',
    '0.0000888 -20000 0.00008845 28195.70625766 0.00008881 -2880.15595827 0.00008844 15571.7 0.00008882',
    '-27705.42933984 0.00008843 2500 0.00008883 -4509.83708214 0.00008841 64196.16117814 0.00008884 -1500',
    '0.00008838 7500 0.00008885 -2500 0.00008837 56.54876269 0.00008888 -902.91405442 0.00008834 10886.476298',
    '0.00008889 -900 0.00008831 20000 0.00008891 -7500 0.0000883 1000 0.00008894 -775.08564697 0.00008829',
    '2517.22175358 0.00008896 -150 0.00008828 450.45 0.00008899 -11628.02590049 0.00008827 13000 0.000089',
    '-1299.7 0.00008824 1500 0.00008902 -4841.8 0.0000882 300 0.00008904 -25320.46250083 0.00008817 3000',
    '0.00008909 -14000 0.00008816 100 0.00008913 -123947.999'
  ]
}
const VETBTC = {
  crc: 1_770_440_002,
  parts: [
    '0.00000121 304023.8109708 0.00000122 -312043.19 0.0000012 518315.33310128 0.00000123 -415094.8939744',
    '0.00000119 566200.89 0.00000124 -348181.23 0.00000118 260000 0.00000125 -12000 0.00000117 100000 0.00000126',
    '-143872.31 0.00000116 160000 0.00000127 -5000 0.00000114 60000 0.0000013 -5000 0.00000113 198500 0.00000134',
    '-8249.18938656 0.00000112 60000 0.00000135 -230043.1337899 0.0000011 60000 0.00000136 -13161.25184766',
    '0.00000106 113868.87735849 0.00000145 -2914 0.00000105 105000 0.0000015 -54448.5 0.00000103 3000 0.00000152',
    '-5538.54849594 0.00000102 105000 0.00000153 -62691.75475079 0.00000101 202970 0.00000159 -2914 0.000001',
    '21000 0.0000016 -52631.10296831 7e-7 10000 0.00000164 -4000 6.6e-7 10000 0.00000166 -3831.46784605 6e-7',
    '100000 0.00000171 -14575.17730379 4.9e-7 10000 0.00000174 -3124.81815395 2.5e-7 2000 0.0000018 -18000 6e-8',
    '100000 0.00000182 -16000 5e-8 200000 0.00000186 -4000 1e-8 640000 0.00000189 -10000.686624 0.00000191',
    '-14500'
  ]
}
const OKX_BTC_USDT = {
  crc: -1_462_286_744,
  parts: [
    '0.07014 56 0.07026 5 0.07011 608 0.07027 765 0.07009 110 0.07028 110 0.07006 1264 0.0703 1264 0.07004 2347',
    '0.07034 280 0.07003 279 0.07035 2255 0.07001 52 0.07036 28 0.06997 91 0.07037 63 0.06996 4242 0.07039 137',
    '0.06995 486 0.0704 48 0.06992 161 0.07041 32 0.06991 63 0.07043 3985 0.06988 7518 0.07057 257 0.06976 186',
    '0.07058 7870 0.06975 71 0.07059 161 0.06973 1086 0.07061 4539 0.06961 513 0.07068 1438 0.06959 4603 0.07088',
    '3162 0.0695 186 0.07104 99 0.06946 3043 0.07108 5018 0.06939 103 0.07115 1540 0.0693 5053 0.07129 5080',
    '0.06909 5039 0.07145 1512 0.06888 5037 0.0715 5016 0.06886 1526 0.07171 5026'
  ]
}

function textOf(parts: readonly string[]): string {
  return parts.join(' ').replaceAll(' ', ':')
}

/** The values of a text two by two: price (or id) and size. */
function pairsOf(text: string): [string, string][] {
  const values = text.split(':')
  return values.flatMap((value, at) => (at % 2 === 0 ? [[value, values[at + 1]!] as [string, string]] : []))
}

function put(levels: LevelBook, isAsk: boolean, price: string, size: string): void {
  levels.set(isAsk, priceKey(price), price, size, '1')
}

describe('Bitfinex', () => {
  it.each([
    ['tXRPBTC P0', XRPBTC, 50],
    ['tVETBTC P0, exponents as they came', VETBTC, 49]
  ])('crc of the published text of %s', (_, { crc, parts }, rows) => {
    expect(pairsOf(textOf(parts))).toHaveLength(rows)
    expect(crc32.str(textOf(parts))).toBe(crc)
  })

  it('expanded exponents are another checksum', () => {
    const expanded = textOf(VETBTC.parts).replace(/([\d.]+)e-(\d+)/g, text =>
      Number(text).toFixed(20).replace(/0+$/, '')
    )
    expect(expanded).toContain(':0.00000066:')
    expect(crc32.str(expanded)).toBe(869_113_743)
  })

  it.each([
    ['101:0.5:201:-3:102:1:103:2', -1_957_030_651],
    ['101:0.5:201:-1e-8:102:1:103:2', -1_243_911_568],
    ['100:1:102:-3:101:2:103:-4', 1_841_538_801],
    ['6000:1:6100:-3:5900:2:6200:-4', 1_756_193_398]
  ])('the raw book of %s', (text, crc) => {
    const orders = new OrderBook()
    for (const [at, [id, amount]] of pairsOf(text).entries()) {
      const isAsk = amount.startsWith('-')
      orders.set(id, isAsk, String(isAsk ? 1000 + at : 999 - at), isAsk ? amount.slice(1) : amount)
    }
    expect(bitfinexChecksum({ orders })).toBe(crc)
  })

  it('orders of one price count by their ids, whenever they came', () => {
    const orders = new OrderBook()
    for (const [id, size] of ['103:2', '101:0.5', '102:1'].map(pair => pair.split(':') as [string, string]))
      orders.set(id, false, '50', size)
    orders.set('201', true, '51', '3')
    expect(bitfinexChecksum({ orders })).toBe(-1_957_030_651)
  })

  it('the published texts through the recipe, with the price in the place of the id', () => {
    for (const { crc, parts } of [XRPBTC, VETBTC]) {
      const orders = new OrderBook()
      for (const [id, amount] of pairsOf(textOf(parts)))
        orders.set(id, amount.startsWith('-'), id, amount.replace(/^-/, ''))
      expect(bitfinexChecksum({ orders })).toBe(crc)
      // The 26th order of a side does not count.
      orders.set('7', true, '9', '1')
      expect(bitfinexChecksum({ orders })).toBe(crc)
    }
  })

  it('an empty book has the checksum of no text', () => {
    expect(bitfinexChecksum({ orders: new OrderBook() })).toBe(0)
  })
})

describe('OKX', () => {
  it('a captured image of BTC-USDT', () => {
    const levels = new LevelBook()
    const pairs = pairsOf(textOf(OKX_BTC_USDT.parts))
    expect(pairs).toHaveLength(50)
    for (const [at, [price, size]] of pairs.entries()) put(levels, at % 2 === 1, price, size)
    expect(okxChecksum({ levels })).toBe(OKX_BTC_USDT.crc)
    put(levels, false, '0.00001', '1')
    expect(okxChecksum({ levels })).toBe(OKX_BTC_USDT.crc)
  })

  it.each([
    [['3366.1:7', '3366:6'], ['3366.8:9', '3368:8'], -1_881_014_294],
    [['3366.1:7'], ['3366.8:9', '3368:8', '3372:8'], 831_078_360]
  ])('bids %j and asks %j', (bids, asks, crc) => {
    const levels = new LevelBook()
    for (const [rows, isAsk] of [
      [bids, false],
      [asks, true]
    ] as const)
      for (const row of rows) put(levels, isAsk, row.split(':')[0]!, row.split(':')[1]!)
    expect(okxChecksum({ levels })).toBe(crc)
  })
})
