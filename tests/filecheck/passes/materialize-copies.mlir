// RUN: quartic-opt %s -p fuse-kernels,materialize-copies --split-input-file | filecheck %s

// What a join can alias is made in place.
// CHECK-LABEL: @main
// CHECK-NOT: "copy_
// CHECK: kern.concat "cat" %{{.*}}, %{{.*}} axis 1
// CHECK: func.return
func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x4x4x4xf32> {
  %0 = qnn.relu %x : tensor<1x2x4x4xf32> loc("a | net")
  %1 = qnn.hardswish %x : tensor<1x2x4x4xf32> loc("b | net")
  %2 = qnn.concat %0, %1 axis 1 : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x4x4x4xf32> loc("cat | net")
  %3 = qnn.relu %2 : tensor<1x4x4x4xf32> loc("c | net")
  func.return %3 : tensor<1x4x4x4xf32>
}

// -----

// A graph input and a value that is there already are copied into the join, which is made in the output's order.
// CHECK-LABEL: @main
// CHECK: %[[R:.*]] = kern.kernel "a"
// CHECK: %[[ONE:.*]] = kern.kernel "copy_0" (%{{.*}} = %[[R]])
// CHECK-NEXT: qnn.pad
// CHECK: %[[TWO:.*]] = kern.kernel "copy_1" (%{{.*}} = %x)
// CHECK: %[[CAT:.*]] = kern.concat "cat" %[[ONE]], %[[TWO]], %[[R]] axis 1
// CHECK: func.return %[[CAT]]
func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x6x4x4xf32> {
  %0 = qnn.relu %x : tensor<1x2x4x4xf32> loc("a | net")
  %1 = qnn.concat %0, %x, %0 axis 1 : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x6x4x4xf32> loc("cat | net")
  func.return %1 : tensor<1x6x4x4xf32>
}

// -----

// A planar input of codes is brought into NHWC order for the matrix unit.
// CHECK-LABEL: @main
// CHECK: %[[C:.*]] = kern.kernel "copy_0" (%{{.*}} = %x)
// CHECK: kern.kernel "conv" (%{{.*}} = %[[C]],
func.func @main(%x: tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>) -> tensor<1x4x4x4xf32> {
  %w = qnn.constant dense<1> : tensor<4x2x1x1xi8> : tensor<4x2x1x1xi8>
  %s = qnn.constant dense<0.5> : tensor<4xf32> : tensor<4xf32>
  %0 = qnn.conv2d %x, %w, %s : (tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>, tensor<4x2x1x1xi8>, tensor<4xf32>) -> tensor<1x4x4x4xf32> loc("conv | net")
  func.return %0 : tensor<1x4x4x4xf32>
}
