// RUN: quartic-opt %s -p "kern-assign-precision{latency_seconds=0.000001}" | filecheck %s
// RUN: quartic-opt %s -p "kern-assign-precision{latency_seconds=1.0}" | filecheck %s --check-prefix RICH
// RUN: quartic-opt %s -p "kern-assign-precision{energy_joules=0.0000000023}" | filecheck %s --check-prefix ENERGY
// RUN: quartic-opt %s -p "kern-assign-precision{loss=0.5 minimise=energy}" | filecheck %s --check-prefix LOSS

// Costs that are given are taken. 600 + 300 + 100 fit 1000 cycles: the layer that loses most keeps its 8 bits.
// CHECK: func.func @main
// CHECK-SAME: attributes {assignment = {loss = #qnn.number<0.5>, cycles = 1000 : i64, femtojoules = 2200000 : i64}}
// CHECK: kern.kernel "one"
// CHECK: } attributes {layer = "net.a", losses = {w4a4 = #qnn.number<4.0>, w8a8 = #qnn.number<0.0>}, costs = {w4a4 = array<i64: 200, 500000>, w8a8 = array<i64: 600, 1000000>}, width = "w8a8"}
// CHECK: kern.kernel "two"
// CHECK: width = "w4a8"}
// CHECK: kern.kernel "tail"
// CHECK: } attributes {costs = {any = array<i64: 100, 200000>}}

// RICH: assignment = {loss = #qnn.number<0.0>, cycles = 1300 : i64
// RICH: width = "w8a8"}
// RICH: width = "w8a8"}

// 0.2 + 1 + 1 nJ fit 2.3 nJ.
// ENERGY: assignment = {loss = #qnn.number<0.5>, cycles = 1000 : i64, femtojoules = 2200000 : i64}

// LOSS: assignment = {loss = #qnn.number<0.5>, cycles = 1000 : i64, femtojoules = 2200000 : i64}

func.func @main(%x: tensor<1x16x8x8x!qnn.int<8, 0.1, 0>>) -> tensor<1x16x8x8xf32> {
  %w = qnn.constant dense<1> : tensor<16x16x3x3xi8> : tensor<16x16x3x3xi8>
  %s = qnn.constant dense<0.5> : tensor<16xf32> : tensor<16xf32>
  %0 = kern.kernel "one" (%a = %x, %b = %w, %d = %s) : (tensor<1x16x8x8x!qnn.int<8, 0.1, 0>>, tensor<16x16x3x3xi8>, tensor<16xf32>) -> tensor<1x16x8x8x!qnn.int<8, 0.1, 0>> {
    %4 = qnn.conv2d %a, %b, %d padding <1, 1, 1, 1> : (tensor<1x16x8x8x!qnn.int<8, 0.1, 0>>, tensor<16x16x3x3xi8>, tensor<16xf32>) -> tensor<1x16x8x8xf32> loc("one | net.a")
    %c = qnn.quantize %4 : tensor<1x16x8x8xf32> -> tensor<1x16x8x8x!qnn.int<8, 0.1, 0>>
    kern.yield %c : tensor<1x16x8x8x!qnn.int<8, 0.1, 0>>
  } attributes {layer = "net.a", losses = {w4a4 = #qnn.number<4.0>, w8a8 = #qnn.number<0.0>}, costs = {w4a4 = array<i64: 200, 500000>, w8a8 = array<i64: 600, 1000000>}} loc("one | net.a")
  %1 = kern.kernel "two" (%a = %0, %b = %w, %d = %s) : (tensor<1x16x8x8x!qnn.int<8, 0.1, 0>>, tensor<16x16x3x3xi8>, tensor<16xf32>) -> tensor<1x16x8x8x!qnn.int<8, 0.2, 0>> {
    %5 = qnn.conv2d %a, %b, %d padding <1, 1, 1, 1> : (tensor<1x16x8x8x!qnn.int<8, 0.1, 0>>, tensor<16x16x3x3xi8>, tensor<16xf32>) -> tensor<1x16x8x8xf32>
    %c = qnn.quantize %5 : tensor<1x16x8x8xf32> -> tensor<1x16x8x8x!qnn.int<8, 0.2, 0>>
    kern.yield %c : tensor<1x16x8x8x!qnn.int<8, 0.2, 0>>
  } attributes {layer = "net.b", losses = {w4a8 = #qnn.number<0.5>, w8a8 = #qnn.number<0.0>}, costs = {w4a8 = array<i64: 300, 1000000>, w8a8 = array<i64: 600, 2000000>}}
  %2 = kern.kernel "tail" (%a = %1) : (tensor<1x16x8x8x!qnn.int<8, 0.2, 0>>) -> tensor<1x16x8x8xf32> {
    %6 = qnn.dequantize %a : tensor<1x16x8x8x!qnn.int<8, 0.2, 0>> -> tensor<1x16x8x8xf32>
    kern.yield %6 : tensor<1x16x8x8xf32>
  } attributes {costs = {any = array<i64: 100, 200000>}}
  func.return %2 : tensor<1x16x8x8xf32>
}
