// RUN: quartic-opt %s -p "kern-assign-precision{loss=10}" | filecheck %s
// RUN: quartic-opt %s -p "kern-assign-precision{loss=0.001}" | filecheck %s --check-prefix EXACT

// Without costs the cost model gives them. The second layer's 4-bit activations save stores of the first kernel.
// Two layers that read one tensor, "b" and "c", agree on its width.
// CHECK: kern.kernel "one"
// CHECK: } attributes {layer = "a", losses = {{.*}}, costs = {w4a4 = array<i64: [[#FAST:]], {{[0-9]+}}>, w4a8 = array<i64: [[#]], {{[0-9]+}}>, w8a8 = array<i64: [[#]], {{[0-9]+}}>}, width = "w4a4"}
// CHECK: kern.kernel "two"
// CHECK: layer = "b", {{.*}} width = "w4a4"}
// CHECK: kern.kernel "three"
// CHECK: layer = "c", {{.*}} width = "w4a4"}

// The third layer alone could have 4-bit activations.
// EXACT: layer = "a", {{.*}} width = "w8a8"}
// EXACT: layer = "b", {{.*}} width = "w8a8"}
// EXACT: layer = "c", {{.*}} width = "w4a8"}

func.func @main(%x: tensor<1x64x32x32x!qnn.int<8, 0.1, 0>>) -> (tensor<1x64x32x32xf32>, tensor<1x64x32x32xf32>) {
  %w = qnn.constant dense<1> : tensor<64x64x3x3xi8> : tensor<64x64x3x3xi8>
  %s = qnn.constant dense<0.5> : tensor<64xf32> : tensor<64xf32>
  %0 = kern.kernel "one" (%a = %x, %b = %w, %d = %s) : (tensor<1x64x32x32x!qnn.int<8, 0.1, 0>>, tensor<64x64x3x3xi8>, tensor<64xf32>) -> tensor<1x64x32x32x!qnn.int<8, 0.1, 0>> {
    %4 = qnn.conv2d %a, %b, %d padding <1, 1, 1, 1> : (tensor<1x64x32x32x!qnn.int<8, 0.1, 0>>, tensor<64x64x3x3xi8>, tensor<64xf32>) -> tensor<1x64x32x32xf32>
    %c = qnn.quantize %4 : tensor<1x64x32x32xf32> -> tensor<1x64x32x32x!qnn.int<8, 0.1, 0>>
    kern.yield %c : tensor<1x64x32x32x!qnn.int<8, 0.1, 0>>
  } attributes {layer = "a", losses = {w4a4 = #qnn.number<1.0>, w4a8 = #qnn.number<0.5>, w8a8 = #qnn.number<0.0>}}
  %1 = kern.kernel "two" (%a = %0, %b = %w, %d = %s) : (tensor<1x64x32x32x!qnn.int<8, 0.1, 0>>, tensor<64x64x3x3xi8>, tensor<64xf32>) -> tensor<1x64x32x32xf32> {
    %5 = qnn.conv2d %a, %b, %d padding <1, 1, 1, 1> : (tensor<1x64x32x32x!qnn.int<8, 0.1, 0>>, tensor<64x64x3x3xi8>, tensor<64xf32>) -> tensor<1x64x32x32xf32>
    kern.yield %5 : tensor<1x64x32x32xf32>
  } attributes {layer = "b", losses = {w4a4 = #qnn.number<1.0>, w4a8 = #qnn.number<0.5>, w8a8 = #qnn.number<0.0>}}
  %2 = kern.kernel "three" (%a = %0, %b = %w, %d = %s) : (tensor<1x64x32x32x!qnn.int<8, 0.1, 0>>, tensor<64x64x3x3xi8>, tensor<64xf32>) -> tensor<1x64x32x32xf32> {
    %6 = qnn.conv2d %a, %b, %d padding <1, 1, 1, 1> : (tensor<1x64x32x32x!qnn.int<8, 0.1, 0>>, tensor<64x64x3x3xi8>, tensor<64xf32>) -> tensor<1x64x32x32xf32>
    kern.yield %6 : tensor<1x64x32x32xf32>
  } attributes {layer = "c", losses = {w4a4 = #qnn.number<0.0>, w4a8 = #qnn.number<0.0>, w8a8 = #qnn.number<0.0>}}
  func.return %1, %2 : tensor<1x64x32x32xf32>, tensor<1x64x32x32xf32>
}
